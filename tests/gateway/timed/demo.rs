//! `busbar demo`, as the README promises it: values move, a device dies and comes back, seen at the broker.

/// Long enough for every chapter at its usual pace; the demo itself fails when it did not see all of them.
const SECONDS: &str = "60";

#[test]
fn the_demo_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let done = busbar_tests::cli::busbar(dir.path(), &["demo", "--plain", "--for", SECONDS]).expect(0);
    for word in ["meter-01", "meter-02", "pump-01", "invalid|comm_lost", "good"] {
        assert!(done.text().contains(word), "expected '{word}' in:\n{}", done.text());
    }
}

/// The shipped configuration is correct as it stands.
#[test]
fn the_shipped_configuration_is_correct() {
    let _ = busbar_tests::cli::busbar(&busbar_tests::built::root(), &["check", "--config", "plugins.toml"])
        .expect(0);
}
