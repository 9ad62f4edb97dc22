//! Scenarios explored: what the shipped crates and the designs answer.

use std::time::Duration;

use bindery_scenario as scenario;
use scenario::run::{Failure, Finding, Limits, Report, replay, run};
use scenario::{Outcome, Scenario, script};

const LIMITS: Limits = Limits { time: Duration::from_secs(60), workers: 2 };

fn explored(text: &str) -> Result<Report, Failure> {
    let scenario = Scenario::parse("test", text).unwrap();
    run(&scenario, &LIMITS, &mut |_| {})
}

fn line(threads: &str) -> Report {
    let scenario = Scenario::of(script::parse(threads).unwrap());
    run(&scenario, &LIMITS, &mut |_| {}).unwrap()
}

#[test]
fn the_shipped_crates_are_safe_and_say_what_calls_answered() {
    let report = line("tsm_bind vdev0 | destroy vdev0");
    assert!(matches!(report.finding, Finding::Safe), "{}", report.finding);
    let names: Vec<_> = report.outcomes[&(1, 0)].iter().map(ToString::to_string).collect();
    assert_eq!(names, ["ok", "EBUSY"]);
}

#[test]
fn every_call_runs_alone() {
    for verb in scenario::Verb::ALL {
        let call = scenario::Call { verb: *verb, number: 0 };
        let report = line(&call.to_string());
        assert!(matches!(report.finding, Finding::Safe), "{call}: {:?}", report.finding);
        assert_eq!(report.counts.executions, 1, "{call}");
    }
}

#[test]
fn a_deadlock_of_a_design_is_found_and_replays() {
    let text = "title = 'x'\nexpect = 'deadlock'\ndesign = 'B-nested'\n\
        [[thread]]\ncalls = ['destroy vdev0']\n[[thread]]\ncalls = ['close vfio0']";
    let report = explored(text).unwrap();
    let scenario = Scenario::parse("test", text).unwrap();
    assert_eq!(report.surprises(&scenario), Vec::<String>::new());
    let Finding::Broken(broken) = report.finding else { panic!("{}", report.finding) };
    let again = replay(&scenario, &broken.schedule).unwrap();
    assert_eq!((again.message, again.tale), (broken.message, broken.tale));
}

#[test]
fn an_outcome_that_is_not_expected_is_told_with_its_order() {
    let report = line("tsm_bind vdev0 -> ok | destroy vdev0 -> ok");
    let Finding::Broken(broken) = report.finding else { panic!("{}", report.finding) };
    let said = "destroy vdev0 answers EBUSY, and ok is expected";
    let other = "tsm_bind vdev0 answers ENOENT, and ok is expected";
    assert!(broken.message.contains(said) || broken.message.contains(other), "{}", broken.message);
}

#[test]
fn an_impossible_set_up_is_no_counterexample() {
    let text = "title = 'x'\n[setup]\ncalls = ['close vfio0', 'tsm_bind vdev0']\n\
        [[thread]]\ncalls = ['close iommu']";
    let failure = explored(text).unwrap_err();
    let Failure::Setup { index, outcome, .. } = failure else { panic!("{failure}") };
    assert_eq!((index, outcome.to_string()), (1, "ENOENT".to_owned()));
}

#[test]
fn a_scenario_reads_back_as_it_prints() {
    let text = "title = 'a \"b\"'\nnumber = 'S1'\nexpect = 'counterexample'\nsays = 'I1'\npreemptions = 2\n\
        [settings]\nbind = 'slow'\n[setup]\ncalls = ['map']\n[[thread]]\ncalls = ['destroy vdev0 -> ok, EBUSY']";
    let scenario = Scenario::parse("test", text).unwrap();
    let printed = scenario.to_string();
    let again = Scenario::parse("test", &printed).unwrap();
    assert_eq!(again.to_string(), printed);
    assert_eq!(again.settings["bind"].value, "slow");
    assert_eq!(again.threads[0][0].expected.as_ref().unwrap().first(), Some(&Outcome::Ok));
}
