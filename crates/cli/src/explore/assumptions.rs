//! What a verdict takes for granted.

use scenario::Scenario;
use scenario::file::SETTINGS;

/// What holds for every verdict.
pub(super) const GENERAL: &str = "threads see memory in one order (sequential consistency); a \
    deadline fires at any moment while it is armed; calls \
    not named are not covered; use after end means after the object's end, memory safety is Rust's";

/// What is explored, and with which settings.
pub(super) fn of(scenario: &Scenario) -> String {
    if let Some((design, without)) = &scenario.design {
        let without = without.as_ref().map_or(String::new(), |rule| format!(" without {rule}"));
        return format!("design {design}{without}, one device and its vdevice, unbound at first");
    }
    let settings = SETTINGS.iter().map(|key| {
        let chosen = scenario.settings.get(key.name).map(|setting| setting.value.as_str());
        (key.name, chosen.or(key.values.first().copied()).unwrap_or_default())
    });
    let told = settings.filter(|(key, _)| {
        scenario.settings.contains_key(*key) || ["uapi", "close_order"].contains(key)
    });
    let told: Vec<_> = told.map(|(key, value)| format!("{key} {value}")).collect();
    format!(
        "the shipped iommufd, vfio and tsm with {}, a TSM in software, a flat table in place of \
         the page table",
        told.join(", ")
    )
}
