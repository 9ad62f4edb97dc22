//! The timeline: the client's steps, and under each what the platform saw meanwhile.
//!
//! A client tells a step once it is done, so a step began when the one before was done; what the
//! platform saw in between belongs to it.

use std::collections::BTreeMap;

use demo::{Bytes, Timed};
use tdisp::State;

use crate::events::{Event, Stamped};
use crate::terminal::{Style, Tone, wrapped};

/// Columns of the whole.
const WIDTH: usize = 80;
/// What stands before the platform's words.
const PLATFORM_INDENT: &str = "              | ";

/// Everything that happened, in order of time.
pub(super) fn text(events: &[Stamped], style: Style) -> String {
    let events = in_order(events);
    let Some(first) = events.first() else { return String::new() };
    let begin_ns = first.at_ns;
    let heading = "       ms   what the client did\n";
    let mut text = style.paint(Tone::Bold, heading);
    text += &style.paint(Tone::Faint, format_args!("{PLATFORM_INDENT}what the platform saw\n"));
    let mut views = BTreeMap::<String, Views>::new();
    for Stamped { at_ns, event } in merged(&events) {
        if let Event::Step { done } = &event {
            let milliseconds = (at_ns - begin_ns) as f64 / 1e6;
            text += &format!("{milliseconds:9.3}   {}\n", style.paint(Tone::Bold, &done.step));
        } else if let Some((tone, words)) = told_of_tdi(&event, &mut views).or_else(|| seen(&event))
        {
            let room = WIDTH - PLATFORM_INDENT.len();
            // What fits stays as it is, columns and all.
            let lines = words.lines().flat_map(|line| match line.len() {
                length if length <= room => vec![line.to_owned()],
                _ => wrapped(line, room),
            });
            for line in lines {
                text += &format!("{PLATFORM_INDENT}{}\n", style.paint(tone, line));
            }
        }
    }
    text
}

/// What each party believes of an interface.
struct Views {
    host: String,
    tsm: String,
    device: String,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            host: "unbound".to_owned(),
            tsm: "-".to_owned(),
            device: State::Unlocked.name().to_owned(),
        }
    }
}

/// What happened to an interface, in words, with the three views of it side by side where one of them
/// changed.
fn told_of_tdi(event: &Event, views: &mut BTreeMap<String, Views>) -> Option<(Tone, String)> {
    let (function, text, tone) = match event {
        Event::Tsm { function, text, host, tsm } => {
            let views = views.entry(function.clone()).or_default();
            views.host = host.clone().unwrap_or_else(|| views.host.clone());
            views.tsm = tsm.clone().unwrap_or_else(|| views.tsm.clone());
            if host.is_none() && tsm.is_none() {
                return Some((Tone::Faint, format!("{function} {text}")));
            }
            (function, text.clone(), Tone::Faint)
        }
        Event::Tdi { function, to, cause, .. } => {
            views.entry(function.clone()).or_default().device.clone_from(to);
            let breach = cause.as_ref().map_or(String::new(), |cause| format!(": {cause}"));
            let tone = if to == State::Error.name() { Tone::Yellow } else { Tone::Faint };
            (function, format!("the device goes to {to}{breach}"), tone)
        }
        Event::Step { .. }
        | Event::Opened { .. }
        | Event::Command { .. }
        | Event::Dma { .. }
        | Event::Interrupt { .. }
        | Event::Trouble { .. }
        | Event::Released { .. } => return None,
    };
    let Views { host, tsm, device } = views.get(function)?;
    let [host, tsm, device] = [host, tsm, device].map(|view| view.replace("CONFIG_", ""));
    Some((tone, format!("{function} {text}\n    host: {host:<10} TSM: {tsm:<10} device: {device}")))
}

/// What the platform saw, in words; `None` for what a reader need not see.
fn seen(event: &Event) -> Option<(Tone, String)> {
    Some(match event {
        Event::Step { .. } | Event::Tsm { .. } | Event::Tdi { .. } => return None,
        Event::Opened { path } => (Tone::Faint, format!("{path} opened")),
        Event::Command { name, errno, fields } => {
            let (_, shown) = COMMANDS.iter().find(|(command, _)| command == name)?;
            if let Some(errno) = errno {
                return Some((Tone::Yellow, format!("{name} refused: {errno}")));
            }
            let shown = shown.iter().filter_map(|field| {
                let value = fields.get(*field)?;
                Some(format!(" {field}={value}"))
            });
            (Tone::Faint, format!("{name}{}", shown.collect::<String>()))
        }
        Event::Dma { function, read, length_bytes } => {
            let verb = if *read { "reads" } else { "writes" };
            (Tone::Faint, format!("{function} {verb} {} of memory", Bytes(*length_bytes)))
        }
        Event::Interrupt { function, vector } => match vector {
            Some(vector) => (Tone::Faint, format!("{function} raises MSI-X vector {vector}")),
            None => (Tone::Faint, format!("{function} raises an interrupt")),
        },
        Event::Trouble { text } => (Tone::Red, text.clone()),
        Event::Released { path, clean: true } => {
            (Tone::Faint, format!("{path} closed, nothing left in it"))
        }
        Event::Released { path, clean: false } => {
            (Tone::Yellow, format!("{path} closed with objects or maps left in it"))
        }
    })
}

/// The commands that change something, and which fields tell what. Those that only ask are left out.
const COMMANDS: &[(&str, &[&str])] = &[
    ("IOMMU_DESTROY", &["id"]),
    ("IOMMU_HWPT_ALLOC", &["dev_id", "pt_id", "out_hwpt_id"]),
    ("IOMMU_IOAS_ALLOC", &["out_ioas_id"]),
    ("IOMMU_IOAS_MAP", &["ioas_id", "iova", "length"]),
    ("IOMMU_IOAS_UNMAP", &["ioas_id", "iova", "length"]),
    ("IOMMU_VDEVICE_ALLOC", &["viommu_id", "dev_id", "virt_id", "out_vdevice_id"]),
    ("IOMMU_VDEVICE_TSM_OP", &["type", "vdevice_id"]),
    ("IOMMU_VDEVICE_TSM_REQ", &["vdevice_id", "op"]),
    ("IOMMU_VIOMMU_ALLOC", &["type", "hwpt_id", "out_viommu_id"]),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", &["pt_id"]),
    ("VFIO_DEVICE_BIND_IOMMUFD", &["iommufd", "out_devid"]),
    ("VFIO_DEVICE_DETACH_IOMMUFD_PT", &[]),
    ("VFIO_DEVICE_RESET", &[]),
    ("VFIO_DEVICE_SET_IRQS", &["index", "start", "count"]),
];

/// By time, each step where it began.
fn in_order(events: &[Stamped]) -> Vec<Stamped> {
    let mut events = events.to_vec();
    let mut done = events.iter().map(earliest).min().unwrap_or(0);
    for Stamped { at_ns, event } in &mut events {
        if let Event::Step { done: Timed { at_ns: ended, .. } } = event {
            *at_ns = done;
            done = *ended;
        }
    }
    events.sort_by_key(|event| (event.at_ns, !matches!(event.event, Event::Step { .. })));
    events
}

/// A step is stamped when it is told, a little after it was done.
fn earliest(event: &Stamped) -> u64 {
    if let Event::Step { done } = &event.event { done.at_ns } else { event.at_ns }
}

/// Transfers of one function that follow each other, as one of each direction.
fn merged(events: &[Stamped]) -> Vec<Stamped> {
    let mut merged: Vec<Stamped> = Vec::new();
    for next in events {
        if let Event::Dma { function, read, length_bytes } = &next.event {
            let earlier = merged
                .iter_mut()
                .rev()
                .take_while(|event| matches!(event.event, Event::Dma { .. }))
                .find_map(|event| same_transfer(&mut event.event, function, *read));
            if let Some(sum) = earlier {
                *sum += length_bytes;
                continue;
            }
        }
        merged.push(next.clone());
    }
    merged
}

fn same_transfer<'a>(event: &'a mut Event, function: &str, read: bool) -> Option<&'a mut u64> {
    if let Event::Dma { function: other, read: direction, length_bytes } = event
        && other == function
        && *direction == read
    {
        return Some(length_bytes);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use demo::Step;

    use super::*;

    fn step(at_ns: u64, step: Step) -> Stamped {
        Stamped { at_ns, event: Event::Step { done: Timed { at_ns, round: 1, step } } }
    }

    fn dma(at_ns: u64, read: bool) -> Stamped {
        let function = "b1d0:01:00.0".to_owned();
        Stamped { at_ns, event: Event::Dma { function, read, length_bytes: 65536 } }
    }

    #[test]
    fn a_step_stands_before_what_the_platform_saw_of_it() {
        let fields = [("out_devid", "1"), ("iommufd", "3")];
        let fields = fields.map(|(field, value)| (field.to_owned(), value.to_owned()));
        let fields = BTreeMap::from(fields);
        let name = "VFIO_DEVICE_BIND_IOMMUFD".to_owned();
        let events = [
            step(1_000_000, Step::OpenedIommu),
            Stamped { at_ns: 1_500_000, event: Event::Command { name, errno: None, fields } },
            step(2_000_000, Step::Bound { id: 1 }),
            dma(2_100_000, true),
            dma(2_200_000, false),
            dma(2_300_000, true),
            dma(2_400_000, false),
            step(3_000_000, Step::Interrupted { vector: 1, count: 1 }),
        ];
        let expected = "       ms   what the client did
              | what the platform saw
    0.000   open /dev/iommu
    0.000   bind it to the iommufd: device 1
              | VFIO_DEVICE_BIND_IOMMUFD iommufd=3 out_devid=1
    1.000   take MSI-X vector 1
              | b1d0:01:00.0 reads 128 KiB of memory
              | b1d0:01:00.0 writes 128 KiB of memory
";
        assert_eq!(text(&events, Style::plain()), expected);
    }

    #[test]
    fn steps_keep_their_order_where_only_the_client_speaks() {
        let told_late = |at_ns, step_at_ns, step| {
            let done = Timed { at_ns: step_at_ns, round: 1, step };
            Stamped { at_ns, event: Event::Step { done } }
        };
        let events = [
            told_late(11, 10, Step::OpenedIommu),
            told_late(21, 20, Step::AllocatedIoas { id: 1 }),
        ];
        let text = text(&events, Style::plain());
        assert!(text.find("open").unwrap() < text.find("allocate").unwrap(), "{text}");
    }

    #[test]
    fn eighty_columns_are_enough() {
        let text = "word ".repeat(100);
        let events = [Stamped { at_ns: 0, event: Event::Trouble { text } }];
        assert!(super::text(&events, Style::plain()).lines().all(|line| line.len() <= WIDTH));
    }
}
