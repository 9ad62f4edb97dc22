//! What CI reads: JUnit's XML, a test case for each scenario.

use std::fmt::Write;

use super::{Explored, timeline};

/// The report.
pub(super) fn of(explored: &[Explored]) -> String {
    let failures = explored.iter().filter(|one| !one.complaints().is_empty()).count();
    let cut_short = explored.iter().filter(|one| is_cut_short(one)).count();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "<testsuite name=\"bindery explore\" tests=\"{}\" failures=\"{failures}\" errors=\"{cut_short}\">",
        explored.len()
    );
    for one in explored {
        case(&mut text, one);
    }
    text.push_str("</testsuite>\n");
    text
}

fn case(text: &mut String, one: &Explored) {
    let report = one.result.as_ref().ok();
    let seconds = report.map_or(0.0, |report| report.elapsed.as_secs_f64());
    let (name, class) = (escaped(&one.scenario.title), escaped(&one.source));
    let _ =
        writeln!(text, "  <testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds:.3}\">");
    let complaints = one.complaints();
    if !complaints.is_empty() {
        let verdict = report.map_or(String::new(), |report| format!("{}: ", report.finding));
        let message = escaped(&format!("{verdict}{}", complaints.join("; ")));
        let drawn =
            one.broken().map_or(String::new(), |broken| timeline::draw(broken, true).join("\n"));
        let _ = writeln!(text, "    <failure message=\"{message}\">{}</failure>", escaped(&drawn));
    } else if is_cut_short(one) {
        let _ = writeln!(text, "    <error message=\"the budget was reached\"/>");
    }
    if let Some(report) = report {
        let finding = escaped(&report.finding.to_string());
        let _ = writeln!(
            text,
            "    <system-out>{finding}: {} states</system-out>",
            report.counts.states
        );
    }
    text.push_str("  </testcase>\n");
}

fn is_cut_short(one: &Explored) -> bool {
    one.result.as_ref().is_ok_and(|report| report.finding.is_cut_short())
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
