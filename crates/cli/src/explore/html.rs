//! What came of scenarios as one HTML page that needs nothing else: no script, no font, no image, no network.
//!
//! It reads from top to bottom without colours and without style: verdicts in words, tables with heads, the violation
//! in words and last. Folded steps open.

use scenario::run::{Broken, Finding, Report};
use scenario::{Scenario, script};

use super::markup::Markup;
use super::tale::{Entry, Kind, Run, Tale};
use super::{Explored, assumptions, human, kept};

/// The page of what was explored.
pub(super) fn of(explored: &[Explored]) -> String {
    let title = match explored {
        [one] => heading(&one.scenario),
        many => format!("{} scenarios", many.len()),
    };
    page(&title, |page| {
        if explored.len() > 1 {
            index(page, explored);
        }
        for (number, one) in explored.iter().enumerate() {
            section(page, number, one);
        }
    })
}

/// The page of an order that was run again.
pub(super) fn replayed(source: &str, scenario: &Scenario, broken: &Broken) -> String {
    page(&heading(scenario), |page| {
        page.raw("<section>").element("<h2>", heading(scenario), "</h2>\n");
        page.element(
            "<p class=\"verdict broken\">",
            format!("Replayed: {}", broken.kind),
            "</p>\n",
        );
        timeline(page, broken);
        again(page, &format!("gdb --args bindery explore --replay {source}"));
        order(page, scenario, broken);
        rests_on(page, scenario);
        told(page, source, scenario);
        page.raw("</section>\n");
    })
}

fn page(title: &str, body: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .raw("<meta name=\"referrer\" content=\"no-referrer\">\n")
        .raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n")
        .element("<title>", format!("{title} - bindery explore"), "</title>\n")
        .raw("<style>\n")
        .raw(include_str!("page.css"))
        .raw("</style>\n</head>\n<body>\n<header><h1>bindery explore</h1></header>\n<main>\n");
    body(&mut page);
    page.raw("</main>\n<footer>\n").element(
        "<p>All verdicts assume: ",
        assumptions::GENERAL,
        ".</p>\n",
    );
    page.raw("</footer>\n</body>\n</html>\n");
    page.finish()
}

fn heading(scenario: &Scenario) -> String {
    let number = scenario.number.as_ref().map_or(String::new(), |number| format!("{number}: "));
    format!("{number}{}", scenario.title)
}

fn index(page: &mut Markup, explored: &[Explored]) {
    let as_expected = explored.iter().filter(|one| one.complaints().is_empty()).count();
    page.raw("<nav aria-label=\"Verdicts\">\n<table class=\"plain\">\n");
    page.element(
        "<caption>",
        format!("{} scenarios, {as_expected} as expected", explored.len()),
        "</caption>\n<thead><tr><th scope=\"col\">Scenario</th><th scope=\"col\">Verdict</th>\
         <th scope=\"col\">As expected</th><th scope=\"col\">States</th></tr></thead>\n<tbody>\n",
    );
    for (number, one) in explored.iter().enumerate() {
        page.raw("<tr><th scope=\"row\"><a href=\"#s").text(number).raw("\">");
        page.text(heading(&one.scenario)).raw("</a></th><td class=\"").raw(class(one));
        page.raw("\">").text(verdict(one)).raw("</td><td>");
        page.raw(if one.complaints().is_empty() { "yes" } else { "<strong>NO</strong>" });
        let states = one.result.as_ref().map_or(0, |report| report.counts.states);
        page.element("</td><td>", states, "</td></tr>\n");
    }
    page.raw("</tbody>\n</table>\n</nav>\n");
}

fn class(one: &Explored) -> &'static str {
    match &one.result {
        Ok(Report { finding: Finding::Safe, .. }) => "safe",
        Ok(Report { finding: Finding::SafeUpTo { .. }, .. }) => "doubt",
        Ok(Report { finding: Finding::Broken(_), .. }) | Err(_) => "broken",
    }
}

fn verdict(one: &Explored) -> String {
    match &one.result {
        Ok(report) => report.finding.to_string(),
        Err(_) => "not explored".to_owned(),
    }
}

fn section(page: &mut Markup, number: usize, one: &Explored) {
    let Explored { source, scenario, result } = one;
    page.raw("<section id=\"s").text(number).raw("\" aria-labelledby=\"h").text(number);
    page.raw("\">\n<h2 id=\"h").text(number).raw("\">").text(heading(scenario)).raw("</h2>\n");
    page.raw("<p class=\"verdict ").raw(class(one)).raw("\">").text(verdict(one));
    if let Ok(report) = result {
        page.element("<span>, ", human::size(report), "");
        page.raw(if one.complaints().is_empty() { ", as expected</span>" } else { "</span>" });
    }
    page.raw("</p>\n");
    for complaint in one.complaints() {
        page.element("<p class=\"surprise\">NOT AS EXPECTED: ", complaint, "</p>\n");
    }
    if let Ok(report) = result {
        answers(page, scenario, report);
    }
    if let Some(broken) = one.broken() {
        timeline(page, broken);
        again(page, &commands(source, scenario));
        order(page, &Scenario { threads: broken.threads.clone(), ..scenario.clone() }, broken);
    }
    rests_on(page, scenario);
    told(page, source, scenario);
    page.raw("</section>\n");
}

/// What each call may answer and did.
fn answers(page: &mut Markup, scenario: &Scenario, report: &Report) {
    page.raw("<table class=\"plain\">\n<caption>What each call answered in some interleaving</caption>\n");
    page.raw("<thead><tr><th scope=\"col\">Thread</th><th scope=\"col\">Call</th>");
    page.raw(
        "<th scope=\"col\">Answered</th><th scope=\"col\">Expected</th></tr></thead>\n<tbody>\n",
    );
    let join = |outcomes: Vec<String>, none: &str| {
        if outcomes.is_empty() { none.to_owned() } else { outcomes.join(", ") }
    };
    for (thread, steps) in scenario.threads.iter().enumerate() {
        for (call, step) in steps.iter().enumerate() {
            let seen = report.outcomes.get(&(thread, call)).into_iter().flatten();
            let expected = step.expected.iter().flatten();
            page.element("<tr><td>", format!("T{thread}"), "</td><th scope=\"row\"><code>");
            page.element("", step.call, "</code></th><td>");
            page.text(join(seen.map(ToString::to_string).collect(), "nothing"));
            let expected = join(expected.map(ToString::to_string).collect(), "anything");
            page.element("</td><td>", expected, "</td></tr>\n");
        }
    }
    page.raw("</tbody>\n</table>\n");
}

/// The timeline: a column for each thread, time going down, the violation last.
fn timeline(page: &mut Markup, broken: &Broken) {
    let tale = Tale::of(broken);
    page.raw("<h3>What happens</h3>\n");
    page.raw("<div class=\"scroll\" role=\"region\" aria-label=\"Timeline\" tabindex=\"0\">\n");
    page.raw("<table class=\"timeline").raw(match tale.heads.len() {
        0..=2 => "",
        3 => " wide",
        _ => " wider",
    });
    page.raw("\">\n<caption>A column for each thread; time goes down. ");
    page.raw("A dashed line is where one thread stops and another goes on.</caption>\n");
    page.raw("<thead><tr><th scope=\"col\" class=\"step\">Step</th>");
    for (column, head) in tale.heads.iter().enumerate() {
        page.element("<th scope=\"col\" class=\"thread\">", head, "");
        if let Some(steps) = broken.threads.get(column) {
            let calls: Vec<_> = steps.iter().map(|step| step.call.to_string()).collect();
            page.element(" <span>", calls.join("; "), "</span>");
        }
        page.raw("</th>");
    }
    page.raw("<th scope=\"col\" class=\"held\">Locks held</th>");
    page.raw("<th scope=\"col\" class=\"at\">Source</th></tr></thead>\n");
    let mut grid = Grid { page, held: vec![Vec::new(); tale.heads.len()] };
    for run in &tale.runs {
        grid.run(run);
    }
    grid.stuck(&tale);
    page.raw("<tbody>\n<tr class=\"violation\"><th scope=\"row\" colspan=\"")
        .text(tale.heads.len() + 3);
    page.element("\">Violation: ", &tale.violation, "</th></tr>\n</tbody>\n</table>\n</div>\n");
}

/// The body of a timeline.
struct Grid<'p> {
    page: &'p mut Markup,
    /// The locks that each column holds.
    held: Vec<Vec<String>>,
}

impl Grid<'_> {
    /// What one thread did.
    fn run(&mut self, run: &Run) {
        self.page.raw("<tbody>\n");
        let mut open = "<tr class=\"switch\">";
        let mut rest = run.entries.as_slice();
        while let Some((entry, others)) = rest.split_first() {
            let folded = rest.iter().take_while(|entry| entry.is_folded).count();
            let (shown, after) = match folded {
                0 => (std::slice::from_ref(entry), others),
                _ => rest.split_at(folded),
            };
            self.page.raw(open);
            self.row(run.column, shown);
            open = "<tr>";
            rest = after;
        }
        if let Some(held) = self.held.get_mut(run.column) {
            held.clone_from(&run.holds);
        }
        self.page.raw("</tbody>\n");
    }

    /// An entry, or several that are folded.
    fn row(&mut self, column: usize, shown: &[Entry]) {
        if let (Some(last), Some(held)) = (shown.last(), self.held.get_mut(column)) {
            held.clone_from(&last.holds);
        }
        let (step, at) = match shown {
            [entry] if !entry.is_folded => (entry.step, entry.at.as_str()),
            _ => (None, ""),
        };
        let step = step.map_or(String::new(), |step| step.to_string());
        self.page.element("<th scope=\"row\" class=\"step\">", step, "</th>");
        for other in 0..self.held.len() {
            if other == column {
                self.page.raw("<td class=\"thread runs\">");
                said(self.page, shown);
                self.page.raw("</td>");
            } else {
                self.page.raw("<td class=\"thread\"></td>");
            }
        }
        self.page.raw("<td class=\"held\">");
        for (thread, locks) in self.held.iter().enumerate().filter(|(_, locks)| !locks.is_empty()) {
            let held = format!("T{thread} {}", locks.join(", "));
            self.page.element("<span>", held, "</span> ");
        }
        self.page.raw("</td>");
        self.page.element("<td class=\"at\">", at, "</td></tr>\n");
    }

    /// What each thread of a deadlock waits for.
    fn stuck(&mut self, tale: &Tale) {
        if tale.stuck.iter().all(Option::is_none) {
            return;
        }
        self.page
            .raw("<tbody>\n<tr class=\"switch stuck\"><th scope=\"row\" class=\"step\">end</th>");
        for what in &tale.stuck {
            let what = what.as_deref().unwrap_or_default();
            self.page.element("<td class=\"thread runs\">", what, "</td>");
        }
        self.page.raw("<td class=\"held\"></td><td class=\"at\"></td></tr>\n</tbody>\n");
    }
}

/// The entry, or the folded ones to be opened.
fn said(page: &mut Markup, shown: &[Entry]) {
    if let [entry] = shown
        && !entry.is_folded
    {
        match entry.kind {
            Kind::Begin => page.element("<span class=\"call\">calls ", &entry.text, "</span>"),
            Kind::Answer => page.element("<span class=\"call\">returns ", &entry.text, "</span>"),
            Kind::Step => page.text(&entry.text),
        };
        return;
    }
    page.element("<details><summary>", shown.len(), " more steps</summary>\n<ol>\n");
    for entry in shown {
        page.element("<li>", &entry.text, " <small>").element("", &entry.at, "</small></li>\n");
    }
    page.raw("</ol></details>");
}

/// How to see it again.
fn again(page: &mut Markup, commands: &str) {
    page.element(
        "<h3>Again, and under a debugger</h3>\n<pre tabindex=\"0\">",
        commands,
        "</pre>\n",
    );
}

fn commands(source: &str, scenario: &Scenario) -> String {
    let what = if source.ends_with(".toml") { source.to_owned() } else { on_one_line(scenario) };
    format!(
        "bindery explore {what} --save order.txt\ngdb --args bindery explore --replay order.txt"
    )
}

/// The options of a scenario that the command line says.
fn on_one_line(scenario: &Scenario) -> String {
    let (design, without) = scenario.design.clone().unzip();
    let rule = without.flatten().map_or(String::new(), |rule| format!("--without {rule} "));
    let design = design.filter(|_| rule.is_empty());
    let design = design.map_or(String::new(), |design| format!("--design {design} "));
    format!("{design}{rule}--threads '{}'", script::line(&scenario.threads))
}

/// The order itself.
fn order(page: &mut Markup, scenario: &Scenario, broken: &Broken) {
    let left = script::line(&broken.threads);
    page.element("<p>The threads: <code>", left, "</code></p>\n");
    page.raw("<details><summary>The order, as --save keeps it</summary>\n");
    page.element("<pre tabindex=\"0\">", kept::text(scenario, broken), "</pre></details>\n");
}

fn rests_on(page: &mut Markup, scenario: &Scenario) {
    page.element(
        "<h3>What this rests on</h3>\n<p>Assumes ",
        assumptions::of(scenario),
        "; and what the end of this page says.</p>\n",
    );
}

fn told(page: &mut Markup, source: &str, scenario: &Scenario) {
    page.element("<h3>The scenario</h3>\n<p>From ", source, ":</p>\n");
    page.element("<pre tabindex=\"0\">", scenario, "</pre>\n");
}

#[cfg(test)]
mod tests {
    use explore::{Event, ViolationKind};
    use proptest::prelude::{any, proptest};
    use proptest::prop_assert_eq;
    use scenario::Outcome;
    use scenario::run::Failure;

    use super::*;

    /// What is not text, in order: all that a browser takes for structure.
    fn tags(page: &str) -> Vec<&str> {
        let (_, after_style) = page.split_once("</style>").unwrap();
        let tags = after_style.split('<').skip(1);
        tags.map(|tag| tag.split_once('>').unwrap().0).collect()
    }

    /// A page with everything that others say: `said` in all places.
    fn pages(said: &str) -> [String; 2] {
        let threads = script::parse("destroy vdev0 | close vfio0").unwrap();
        let scenario = Scenario {
            title: said.to_owned(),
            number: Some(said.to_owned()),
            says: Some(said.to_owned()),
            ..Scenario::of(threads.clone())
        };
        let event = |thread, what: String| Event { thread, what, at: None, is_step: true };
        let broken = Broken {
            threads,
            kind: ViolationKind::Panic,
            message: format!("it says {said}"),
            preemptions: 0,
            schedule: "# schedule 1\n".parse().unwrap(),
            tale: vec![
                event(Some(0), format!("--> {said}")),
                event(Some(0), format!("do {said}")),
                event(Some(1), format!("<-- {said}")),
                event(None, format!("fire {said}")),
            ],
        };
        let failure = Failure::Setup { index: 0, call: said.to_owned(), outcome: Outcome::Ok };
        let replayed = replayed(said, &scenario, &broken);
        let one = || Explored {
            source: format!("{said}.toml"),
            scenario: scenario.clone(),
            result: Err(failure.clone()),
        };
        [replayed, of(&[one(), one()])]
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(said in any::<String>()) {
            for (page, plain) in pages(&said).iter().zip(&pages("plain")) {
                prop_assert_eq!(tags(page), tags(plain));
            }
        }

        #[test]
        fn no_markup_breaks_out(said in "[<>&\"'/!\\-a-z =]{0,20}") {
            for (page, plain) in pages(&said).iter().zip(&pages("plain")) {
                prop_assert_eq!(tags(page), tags(plain));
            }
        }
    }

    #[test]
    fn what_is_open_is_closed() {
        const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
        for page in pages("plain") {
            let (head, _) = page.split_once("<style>").unwrap();
            let mut open = Vec::new();
            let mut all: Vec<_> =
                head.split('<').skip(1).map(|it| it.split_once('>').unwrap().0).collect();
            all.extend(tags(&page));
            for tag in all {
                let name = tag.split(' ').next().unwrap();
                match name.strip_prefix('/') {
                    Some(closed) => assert_eq!(open.pop(), Some(closed), "{tag}"),
                    None if VOID.contains(&name) => {}
                    None => open.push(name),
                }
            }
            assert_eq!(open, [""; 0]);
        }
    }

    #[test]
    fn the_page_needs_nothing_else() {
        for page in pages("plain") {
            for outside in
                ["<script", "<link", "<img", "src=", "url(", "@import", "http:", "https:"]
            {
                assert!(!page.contains(outside), "{outside}");
            }
        }
    }
}
