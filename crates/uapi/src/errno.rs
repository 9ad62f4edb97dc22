//! Error numbers as Linux on x86-64 publishes them.
//!
//! What lives here: one number per reason, with its name. Which reason a refusal has is the
//! business of whoever refuses. Takes no lock. Deliberately absent: the aliases (`EWOULDBLOCK`,
//! `EDEADLOCK`), the kernel's internal numbers from 512 up, and texts. Source:
//! [uapi/asm-generic/errno.h].

use std::fmt;

/// A reason for a refusal, as a system call reports it.
///
/// Only numbers that have a name exist as values. [uapi/asm-generic/errno.h]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($number:literal $name:ident,)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`, ", stringify!($number), ".")]
                pub const $name: Self = Self($number);
            )*

            /// Every error number, ascending.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Names the number as `errno.h` does: `"EINVAL"`.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => stringify!($name),)*
                    _ => unreachable!(),
                }
            }

            /// Takes a positive error number; `None` if Linux gives no name to it.
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $($number)|* => Some(Self(raw)),
                    _ => None,
                }
            }
        }
    };
}

errnos! {
      1 EPERM,
      2 ENOENT,
      3 ESRCH,
      4 EINTR,
      5 EIO,
      6 ENXIO,
      7 E2BIG,
      8 ENOEXEC,
      9 EBADF,
     10 ECHILD,
     11 EAGAIN,
     12 ENOMEM,
     13 EACCES,
     14 EFAULT,
     15 ENOTBLK,
     16 EBUSY,
     17 EEXIST,
     18 EXDEV,
     19 ENODEV,
     20 ENOTDIR,
     21 EISDIR,
     22 EINVAL,
     23 ENFILE,
     24 EMFILE,
     25 ENOTTY,
     26 ETXTBSY,
     27 EFBIG,
     28 ENOSPC,
     29 ESPIPE,
     30 EROFS,
     31 EMLINK,
     32 EPIPE,
     33 EDOM,
     34 ERANGE,
     35 EDEADLK,
     36 ENAMETOOLONG,
     37 ENOLCK,
     38 ENOSYS,
     39 ENOTEMPTY,
     40 ELOOP,
     42 ENOMSG,
     43 EIDRM,
     44 ECHRNG,
     45 EL2NSYNC,
     46 EL3HLT,
     47 EL3RST,
     48 ELNRNG,
     49 EUNATCH,
     50 ENOCSI,
     51 EL2HLT,
     52 EBADE,
     53 EBADR,
     54 EXFULL,
     55 ENOANO,
     56 EBADRQC,
     57 EBADSLT,
     59 EBFONT,
     60 ENOSTR,
     61 ENODATA,
     62 ETIME,
     63 ENOSR,
     64 ENONET,
     65 ENOPKG,
     66 EREMOTE,
     67 ENOLINK,
     68 EADV,
     69 ESRMNT,
     70 ECOMM,
     71 EPROTO,
     72 EMULTIHOP,
     73 EDOTDOT,
     74 EBADMSG,
     75 EOVERFLOW,
     76 ENOTUNIQ,
     77 EBADFD,
     78 EREMCHG,
     79 ELIBACC,
     80 ELIBBAD,
     81 ELIBSCN,
     82 ELIBMAX,
     83 ELIBEXEC,
     84 EILSEQ,
     85 ERESTART,
     86 ESTRPIPE,
     87 EUSERS,
     88 ENOTSOCK,
     89 EDESTADDRREQ,
     90 EMSGSIZE,
     91 EPROTOTYPE,
     92 ENOPROTOOPT,
     93 EPROTONOSUPPORT,
     94 ESOCKTNOSUPPORT,
     95 EOPNOTSUPP,
     96 EPFNOSUPPORT,
     97 EAFNOSUPPORT,
     98 EADDRINUSE,
     99 EADDRNOTAVAIL,
    100 ENETDOWN,
    101 ENETUNREACH,
    102 ENETRESET,
    103 ECONNABORTED,
    104 ECONNRESET,
    105 ENOBUFS,
    106 EISCONN,
    107 ENOTCONN,
    108 ESHUTDOWN,
    109 ETOOMANYREFS,
    110 ETIMEDOUT,
    111 ECONNREFUSED,
    112 EHOSTDOWN,
    113 EHOSTUNREACH,
    114 EALREADY,
    115 EINPROGRESS,
    116 ESTALE,
    117 EUCLEAN,
    118 ENOTNAM,
    119 ENAVAIL,
    120 EISNAM,
    121 EREMOTEIO,
    122 EDQUOT,
    123 ENOMEDIUM,
    124 EMEDIUMTYPE,
    125 ECANCELED,
    126 ENOKEY,
    127 EKEYEXPIRED,
    128 EKEYREVOKED,
    129 EKEYREJECTED,
    130 EOWNERDEAD,
    131 ENOTRECOVERABLE,
    132 ERFKILL,
    133 EHWPOISON,
}

impl Errno {
    /// The positive number.
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_value_exactly_if_linux_names_it() {
        for raw in -1..=600 {
            // 41 and 58 are the holes that EWOULDBLOCK and EDEADLOCK once filled.
            let named = (1..=133).contains(&raw) && raw != 41 && raw != 58;
            assert_eq!(Errno::from_raw(raw).map(Errno::raw), named.then_some(raw));
        }
        assert!(Errno::ALL.is_sorted());
        assert_eq!(Errno::ALL.len(), 131);
    }

    #[test]
    fn names_match_numbers() {
        assert_eq!(Errno::ENOTTY.raw(), 25);
        assert_eq!(Errno::EBADFD.raw(), 77);
        assert_eq!(Errno::EOPNOTSUPP.raw(), 95);
        assert_eq!(Errno::from_raw(105).map(Errno::name), Some("ENOBUFS"));
        assert_eq!(
            format!("{} {:?} {:>8}", Errno::E2BIG, Errno::EFAULT, Errno::EIO),
            "E2BIG EFAULT      EIO"
        );
    }
}
