//! Captures: pcap files with a DOE object in each packet (link type 292), as spdm-emu writes them and
//! spdm_dump reads them.
//!
//! Takes no lock. Deliberately absent: pcapng, other link types, packets that were cut off.

use std::io::{self, Write};
use std::time::Duration;

use thiserror::Error;

/// The link type of PCI DOE.
pub const LINK_TYPE_DOE: u32 = 292;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;
const VERSION: [u16; 2] = [2, 4];
/// The most bytes of a packet that is kept: any DOE object.
const SNAP_BYTES: u32 = 1 << 20;

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, since 1970.
    pub time: Duration,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is no capture of DOE objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoCapture {
    /// The first bytes are not those of a pcap file.
    #[error("no pcap file: it begins with {found:#010x}")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// Packets of something else.
    #[error("packets of link type {found}, not of PCI DOE ({LINK_TYPE_DOE})")]
    LinkType {
        /// The link type.
        found: u32,
    },
    /// It ends inside a header or packet.
    #[error("it ends at byte {end}, inside {what} that begins at byte {at}")]
    Short {
        /// What it ends in.
        what: &'static str,
        /// Where that begins.
        at: usize,
        /// Where the file ends.
        end: usize,
    },
    /// A packet that was not kept whole.
    #[error("the packet at byte {at} has {kept} of {sent} bytes")]
    Cut {
        /// Where it begins.
        at: usize,
        /// Bytes in the file.
        kept: u32,
        /// Bytes on the wire.
        sent: u32,
    },
}

/// Reads the packets of a capture, of either byte order and resolution.
///
/// # Errors
/// [`NoCapture`].
pub fn read(file: &[u8]) -> Result<Vec<Packet>, NoCapture> {
    let reader = Reader::new(file)?;
    let (mut packets, mut at) = (Vec::new(), FILE_HEADER_BYTES);
    while at < file.len() {
        let (packet, next) = reader.packet(at)?;
        packets.push(packet);
        at = next;
    }
    Ok(packets)
}

struct Reader<'a> {
    file: &'a [u8],
    swapped: bool,
    /// Nanoseconds in the unit of a packet's time.
    unit_ns: u32,
}

impl<'a> Reader<'a> {
    fn new(file: &'a [u8]) -> Result<Self, NoCapture> {
        let short = NoCapture::Short { what: "the file's header", at: 0, end: file.len() };
        let header = file.get(..FILE_HEADER_BYTES).ok_or(short)?;
        let found = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let (swapped, unit_ns) = match (found, found.swap_bytes()) {
            (MAGIC_MICROSECONDS, _) => (false, 1000),
            (_, MAGIC_MICROSECONDS) => (true, 1000),
            (MAGIC_NANOSECONDS, _) => (false, 1),
            (_, MAGIC_NANOSECONDS) => (true, 1),
            _ => return Err(NoCapture::Magic { found }),
        };
        let reader = Self { file, swapped, unit_ns };
        match reader.word(20).unwrap_or_default() {
            LINK_TYPE_DOE => Ok(reader),
            found => Err(NoCapture::LinkType { found }),
        }
    }

    fn packet(&self, at: usize) -> Result<(Packet, usize), NoCapture> {
        let short = |what| NoCapture::Short { what, at, end: self.file.len() };
        let word = |offset| self.word(at + offset).ok_or(short("the header of a packet"));
        let (seconds, fraction, kept, sent) = (word(0)?, word(4)?, word(8)?, word(12)?);
        if kept < sent {
            return Err(NoCapture::Cut { at, kept, sent });
        }
        let begin = at + PACKET_HEADER_BYTES;
        let end = begin.saturating_add(kept as usize);
        let bytes = self.file.get(begin..end).ok_or(short("a packet"))?.to_vec();
        let fraction = Duration::from_nanos(u64::from(fraction) * u64::from(self.unit_ns));
        let time = Duration::from_secs(seconds.into()) + fraction;
        Ok((Packet { time, bytes }, end))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = *self.file.get(at..)?.first_chunk::<4>()?;
        let word = u32::from_le_bytes(bytes);
        Some(if self.swapped { word.swap_bytes() } else { word })
    }
}

/// Writes a capture.
pub struct Writer<W: Write> {
    into: W,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of `into`.
    pub fn new(mut into: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
        header.extend(MAGIC_MICROSECONDS.to_le_bytes());
        VERSION.iter().for_each(|part| header.extend(part.to_le_bytes()));
        // Time zone and accuracy, which nobody fills in.
        header.extend([0; 8]);
        header.extend(SNAP_BYTES.to_le_bytes());
        header.extend(LINK_TYPE_DOE.to_le_bytes());
        into.write_all(&header)?;
        Ok(Self { into })
    }

    /// Adds a packet: a whole DOE object.
    ///
    /// # Errors
    /// Those of the file.
    pub fn packet(&mut self, time: Duration, bytes: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a packet of over 4 GiB");
        let length = u32::try_from(bytes.len()).map_err(too_long)?;
        // Seconds wrap in 2106, as the format does.
        let seconds = u32::try_from(time.as_secs() & u64::from(u32::MAX)).unwrap_or_default();
        let mut packet = Vec::with_capacity(PACKET_HEADER_BYTES + bytes.len());
        for word in [seconds, time.subsec_micros(), length, length] {
            packet.extend(word.to_le_bytes());
        }
        packet.extend(bytes);
        self.into.write_all(&packet)?;
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(packets: &[Packet]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        packets.iter().for_each(|packet| writer.packet(packet.time, &packet.bytes).unwrap());
        file
    }

    fn packet() -> impl Strategy<Value = Packet> {
        (0..u64::from(u32::MAX), 0..1_000_000_u64, any::<Vec<u8>>()).prop_map(|(s, us, bytes)| {
            Packet { time: Duration::from_secs(s) + Duration::from_micros(us), bytes }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(packets in proptest::collection::vec(packet(), 0..8)) {
            prop_assert_eq!(read(&written(&packets)), Ok(packets));
        }

        #[test]
        fn cut_files_are_refused_or_end_between_packets(
            packets in proptest::collection::vec(packet(), 1..4),
            cut in any::<proptest::sample::Index>(),
        ) {
            let file = written(&packets);
            let at = cut.index(file.len());
            match read(&file[..at]) {
                Ok(read) => prop_assert!(packets.starts_with(&read)),
                Err(NoCapture::Short { end, .. }) => prop_assert_eq!(end, at),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    #[test]
    fn the_other_byte_order_is_read() {
        let time = Duration::from_micros(1_500_000);
        let file = written(&[Packet { time, bytes: vec![1, 2, 3, 4] }]);
        let mut swapped = file.clone();
        for word in swapped[..FILE_HEADER_BYTES + PACKET_HEADER_BYTES].chunks_mut(4) {
            word.reverse();
        }
        assert_eq!(read(&swapped), read(&file));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(read(b"GIF89a, and so on and so on"), Err(NoCapture::Magic { .. })));
        let mut file = written(&[]);
        file[20] = 1;
        assert_eq!(read(&file), Err(NoCapture::LinkType { found: 0x101 }));
    }
}
