//! What was found, as tables in Markdown and as a plot.

use std::fmt::Write;
use std::{fs, io};

use crate::goals::{GOALS, judge};
use crate::measure::{Samples, quantile};

/// The tables, and what is to be said about them in one line.
pub(crate) struct Report {
    pub(crate) goals: String,
    pub(crate) figures: String,
    /// How many gates were missed.
    pub(crate) gates_missed: usize,
    plot: String,
}

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
const NAME: &str = "performance-page-table-figures";

impl Report {
    pub(crate) fn of(samples: &Samples) -> Self {
        let (goals, gates_missed) = goals(samples);
        Self { goals, figures: figures(samples), gates_missed, plot: plot(samples) }
    }

    /// Writes the pages that `docs/performance-page-table.md` leads to.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub(crate) fn write(&self, where_and_when: &str) -> io::Result<()> {
        let page = format!(
            "# The page table, in figures\n\nWritten by `cargo bench -p bindery-pagetable --bench page_table -- --docs`. \
             [What they mean](performance-page-table.md).\n\n{where_and_when}\n\n![Medians by contender]({NAME}.svg)\n\n\
             ## Goals\n\n{}\n## Figures\n\n{}",
            self.goals, self.figures
        );
        fs::write(format!("{DOCS}/{NAME}.md"), page)?;
        fs::write(format!("{DOCS}/{NAME}.svg"), &self.plot)
    }
}

/// Each workload and contender: least, median, most.
fn figures(samples: &Samples) -> String {
    let mut text =
        "| workload | contender | least | median | most |\n|---|---|---|---|---|\n".to_owned();
    for workload in samples.workloads() {
        for contender in samples.contenders(workload) {
            let values = samples.of(workload, contender);
            let [least, median, most] = [0.0, 0.5, 1.0].map(|share| quantile(values, share));
            let _ = writeln!(
                text,
                "| {workload} | {contender} | {least:.1} | {median:.1} | {most:.1} |"
            );
        }
    }
    text
}

fn goals(samples: &Samples) -> (String, usize) {
    let verdicts: Vec<_> =
        GOALS.iter().filter_map(|goal| Some((goal, judge(goal, samples)?))).collect();
    let met = verdicts.iter().filter(|(_, verdict)| verdict.met).count();
    let mut text = format!("{met} of {} are met.\n\n", verdicts.len());
    text.push_str("| goal | workload | demanded | found (median, other quartile) | met |\n|---|---|---|---|---|\n");
    let mut gates_missed = 0;
    for (goal, verdict) in &verdicts {
        gates_missed += usize::from(goal.gate && !verdict.passes_gate);
        let met = if verdict.met { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {met} |",
            goal.id, goal.workload, verdict.demanded, verdict.found
        );
    }
    (text, gates_missed)
}

/// What the plot shows, a line each.
const PLOTTED: &[&str] = &[
    "RAM-heavy",
    "uniform over 50",
    "1M, 64 B",
    "1M, 64 B-64 KiB",
    "churn",
    "mixed 4K-2M",
    "map 64 GiB in order",
    "unmap 64 GiB",
    "automatic IOVA",
    "read clean",
    "read all dirty again",
];

const COLOURS: &[(&str, &str)] = &[
    ("bindery", "#c00000"),
    ("flat floor", "#808080"),
    ("BTreeMap", "#1f77b4"),
    ("rangemap", "#2ca02c"),
    ("nodit", "#9467bd"),
    ("vm-memory", "#ff7f0e"),
    ("BTreeMap walk", "#8c564b"),
];

const LEFT: f64 = 190.0;
const DECADE: f64 = 75.0;
const DECADES: u32 = 9;
const LINE: f64 = 26.0;
const TOP: f64 = 60.0;

/// A dot for each contender's median, in nanoseconds on a logarithmic axis.
fn plot(samples: &Samples) -> String {
    let height = LINE.mul_add(PLOTTED.len() as f64, TOP) + 40.0;
    let width = DECADE.mul_add(f64::from(DECADES), LEFT) + 30.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let bottom = height - 34.0;
    for decade in 0..=DECADES {
        let x = DECADE.mul_add(f64::from(decade), LEFT);
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#ddd\"/>",
            TOP - 14.0
        );
        let label =
            ["1 ns", "10", "100", "1 us", "10", "100", "1 ms", "10", "100", "1 s"][decade as usize];
        let _ = writeln!(
            text,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for (index, (contender, colour)) in COLOURS.iter().enumerate() {
        let x = 110.0f64.mul_add(index as f64, 20.0);
        let _ = writeln!(
            text,
            "<circle cx=\"{x}\" cy=\"20\" r=\"5\" fill=\"{colour}\"/><text x=\"{}\" y=\"24\">{contender}</text>",
            x + 9.0
        );
    }
    for (index, workload) in PLOTTED.iter().enumerate() {
        let y = LINE.mul_add(index as f64, TOP);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{workload}</text>",
            LEFT - 12.0,
            y + 4.0
        );
        for (contender, colour) in COLOURS.iter().rev() {
            let values = samples.of(workload, contender);
            if values.is_empty() {
                continue;
            }
            let x = DECADE.mul_add(quantile(values, 0.5).max(1.0).log10(), LEFT);
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"5\" fill=\"{colour}\"/>");
        }
    }
    text.push_str("</svg>\n");
    text
}
