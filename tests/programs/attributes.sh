# Writes to sysfs attributes as a shell does them. Prints what is not as Linux has it; exits with how many.
#
# usage: attributes.sh ABANDON (the program that holds a device until killed)
device=/sys/bus/pci/devices/$BINDERY_BDF
driver=/sys/bus/pci/drivers/vfio-pci
bad=0

# is STATUS TEXT COMMAND: how the command ends, and what it says. Only bash says which error a write met.
is() {
    told=$( { eval "$3"; } 2>&1 )
    status=$?
    text=$2
    [ "$1" = 0 ] || [ -n "$BASH_VERSION" ] || text=
    case $status:$told in
    "$1":*"$text"*) ;;
    *)
        echo "$3: status $status: $told"
        bad=$((bad + 1))
        ;;
    esac
}

# fails COMMAND: it cannot even be opened
fails() { ( eval "$1" ) 2>/dev/null && echo "$1: succeeded" && bad=$((bad + 1)); }

is 0 '' "echo 1 > $device/reset"
is 1 'Invalid argument' "echo x > $device/reset"
is 1 'Invalid argument' "echo 0 > $device/reset"
is 1 'No such device' "echo x > $driver/bind"
is 1 'No such device' "echo x > $driver/unbind"
is 1 'resource busy' "echo $BINDERY_BDF > $driver/bind"
is 1 'Invalid argument' "echo x > $driver/new_id"
fails "echo 1 > $device/numa_node"
fails "echo 1 > $device/nothing"

"$1" > "$2/bound" &
until [ -s "$2/bound" ]; do sleep 0.02; done
is 1 'resource busy' "echo 1 > $device/reset"
kill -KILL $!
wait $! 2>/dev/null
is 0 '' "echo 1 > $device/reset"

is 0 '' "echo $BINDERY_BDF > $driver/unbind"
fails "test -e $BINDERY_CDEV"
fails "test -e $device/driver"
is 1 'No such device' "echo $BINDERY_BDF > $driver/unbind"
is 0 '' "echo another-driver > $device/driver_override"
is 0 another-driver "cat $device/driver_override"
is 1 'No such device' "echo $BINDERY_BDF > $driver/bind"
is 0 '' "echo vfio-pci > $device/driver_override"
is 0 '' "echo $BINDERY_BDF > $driver/bind"
is 0 '' "test -c $BINDERY_CDEV"
is 0 '' "echo > $device/driver_override"
is 0 '(null)' "cat $device/driver_override"
exit $bad
