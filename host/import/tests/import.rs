//! Whole files: the written configuration loads without an error, and everything wrong in bad files is named.
//!
//! `UPDATE_EXPECTED=1` writes `tests/files/*.expected` anew; read the difference before keeping it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use busbar_config::{Loaded, NoPlugins, load_text};
use busbar_import::{AddressMode, Files, Import, MapNumbers, Options, human, ini, map};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")
}

/// Maps of the test folder, whatever folder the INI names.
struct Folder;

impl Files for Folder {
    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let file = Path::new(name).file_name().unwrap_or_default();
        std::fs::read(folder().join(file)).map_err(|_| format!("{name}: no such file"))
    }
}

fn import(file: &str, options: &Options) -> Import {
    let bytes = std::fs::read(folder().join(file)).unwrap();
    if file.ends_with(".json") { map(file, &bytes, options) } else { ini(file, &bytes, &Folder, options) }
}

fn import_text(text: &str) -> Import {
    ini("c.ini", text.as_bytes(), &Folder, &Options::default())
}

fn load(toml: &str, env: &[(&str, &str)]) -> Loaded {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_text(
        Path::new("plugins.toml"),
        toml,
        &NoPlugins,
        &busbar_config::Options { strict: false, env: Some(env) },
    )
}

fn texts(import: &Import) -> Vec<String> {
    import.findings.iter().map(|finding| finding.problem.to_string()).collect()
}

/// The output and the findings are those of the file beside the input.
fn matches(file: &str) -> Import {
    let made = import(file, &Options::default());
    let shown = format!("{}\n=== findings ===\n{}", made.toml, human(&made.findings, &made.sources, false));
    let path = folder().join(format!("{file}.expected"));
    if std::env::var_os("UPDATE_EXPECTED").is_some_and(|value| value == "1") {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, expected, "{}", path.display());
    assert_eq!(import(file, &Options::default()).toml, made.toml, "the same input makes the same bytes");
    made
}

#[test]
fn the_first_generation() {
    let made = matches("seed.ini");
    assert!(!made.failed() && !made.has_secret);
    let loaded = load(&made.toml, &[]);
    let site = loaded.site.as_ref().unwrap_or_else(|| panic!("{}\n{}", loaded.render(false), made.toml));
    assert_eq!(site.devices.len(), 2);
    assert_eq!(site.devices[0].poll_interval.as_secs(), 60);
    let env = [
        ("COLLECTION_INTERVAL", "10"),
        ("TEST_DEVICE", "DEVICE_RTU"),
        ("DEBUG", "1"),
        ("SERIAL_TIMEOUT", "2"),
    ];
    let loaded = load(&made.toml, &env);
    let site = loaded.site.as_ref().unwrap_or_else(|| panic!("{}", loaded.render(false)));
    assert_eq!(site.devices.len(), 1);
    let device = &site.devices[0];
    assert_eq!(device.name, "Power_Analyzer_01");
    assert_eq!((device.poll_interval.as_secs(), device.response_timeout.as_secs()), (10, 2));
    assert_eq!(loaded.host.log.level.as_str(), "debug");
}

#[test]
fn the_second_generation() {
    let made = matches("field.ini");
    assert!(!made.failed() && made.has_secret);
    assert!(!human(&made.findings, &made.sources, false).contains("hunter2"));
}

#[test]
fn a_map_alone() {
    let made = matches("meter.json");
    assert!(made.findings.is_empty());
    let read: toml::Table = made.toml.parse().unwrap();
    assert_eq!(read["template"]["meter"]["points"].as_array().unwrap().len(), 3);
}

#[test]
fn everything_wrong_at_once() {
    let made = matches("bad.ini");
    assert!(made.failed());
    assert!(made.toml.starts_with("# INCOMPLETE: "));
    let finding = made.findings.iter().find(|finding| finding.index == Some(2)).unwrap();
    assert_eq!((finding.section.as_str(), finding.key.as_str()), ("LISTS", "register_types"));
    assert_eq!(finding.json()["index"], 2);
}

#[test]
fn everything_wrong_in_the_second_generation() {
    assert!(matches("bad-field.ini").failed());
}

#[test]
fn address_modes_are_obeyed() {
    let text = "[D]\nprotocol=TCP\nhost=h\nslave_id=1\nregisters=30001\nregister_types=HOLDING\ndata_types=INT16\nlabels=x\n";
    for (mode, address, doubts) in [
        (AddressMode::Auto, "holding:0", 1),
        (AddressMode::Entity, "holding:0", 1),
        (AddressMode::Offset, "holding:30001", 0),
    ] {
        let options = Options { address_mode: mode, ..Options::default() };
        let made = ini("c.ini", text.as_bytes(), &Folder, &options);
        assert!(made.toml.contains(&format!("address = \"{address}\"")), "{}", made.toml);
        assert_eq!(made.findings.len(), doubts, "{:?}", texts(&made));
    }
    let options = Options { map_numbers: MapNumbers::Hex, ..Options::default() };
    let made = map("m.json", br#"{"a": {"address": "8198", "data_type": "f"}}"#, &options);
    assert!(made.toml.contains("holding:0x8198") && made.findings.is_empty(), "{}", made.toml);
}

#[test]
fn encodings_and_line_ends() {
    let plain = std::fs::read_to_string(folder().join("seed.ini")).unwrap();
    let made = import_text(&plain);
    let windows = format!("\u{feff}{}", plain.replace('\n', "\r\n"));
    assert_eq!(import_text(&windows).toml, made.toml);
    let latin: Vec<u8> = plain.chars().map(|symbol| u8::try_from(u32::from(symbol)).unwrap()).collect();
    let refused = ini("c.ini", &latin, &Folder, &Options::default());
    assert_eq!(
        texts(&refused),
        [
            "c.ini:20:26: error: expected UTF-8 text, found the byte 0xF3 (if it is Latin-1: iconv -f latin1 -t utf-8 OLD \
          > NEW, then import NEW)"
        ]
    );
    assert!(refused.failed());
}

#[test]
fn nothing_of_a_device_whose_lists_are_unequal_is_written() {
    let text = "[D]\nprotocol=TCP\nhost=h\nslave_id=1\nregisters=1,2,3\ndata_types=BOOL,BOOL\nlabels=a,b,c\n";
    let made = import_text(text);
    assert_eq!(
        texts(&made),
        [
            "c.ini:6:12: error: [D] data_types: expected 3 values, as many as registers, found 2 (what belongs to which register \
          cannot be told; the device is left out)"
        ]
    );
    assert!(!made.toml.contains("[[device]]"));
}

#[test]
fn many_mistakes_are_bounded() {
    let mut text = String::new();
    for n in 0..3_000 {
        text.push_str(&format!("[S{n}]\nwrong\n"));
    }
    let made = import_text(&text);
    assert!(made.findings.len() <= busbar_import::MAX_FINDINGS + 1);
    assert!(texts(&made).last().unwrap().contains("more"));
}

/// What a small file asks for must be bounded by what a gateway holds.
#[test]
fn units_times_a_map_are_bounded() {
    let units: Vec<String> = (1..=247).map(|unit| unit.to_string()).collect();
    let units = units.join(",");
    let mut text = String::from("[MAINMODBUS]\ndevicesnames = ");
    text.push_str(&(0..100).map(|n| format!("d{n}")).collect::<Vec<_>>().join(","));
    for n in 0..100 {
        text.push_str(&format!(
            "\n[d{n}]\nprotocol = TCP\nhost = h{n}\ndevice_id = {units}\nmapfile = large.json"
        ));
    }
    let made = ini("c.ini", text.as_bytes(), &Large, &Options::default());
    assert!(made.failed());
    assert!(
        texts(&made).iter().any(|text| text.contains("at most 1000000 points")),
        "{:?}",
        texts(&made).first()
    );
}

/// A map of ten thousand variables, whatever its name.
struct Large;

impl Files for Large {
    fn read(&self, _: &str) -> Result<Vec<u8>, String> {
        let one = |n: u32| format!(r#""n {n}": {{"address": "0x0001", "data_type": "H", "gain": "1"}}"#);
        Ok(format!("{{{}}}", (0..10_000).map(one).collect::<Vec<_>>().join(",\n")).into_bytes())
    }
}

#[test]
fn names_that_are_no_sections_are_bounded() {
    let names: Vec<String> = (0..100_000).map(|n| format!("n{n}")).collect();
    let made = import_text(&format!("[MAINMODBUS]\ndevicesnames = {}\n", names.join(",\n  ")));
    assert!(made.findings.len() <= busbar_import::MAX_FINDINGS + 1);
}

#[test]
fn passwords_are_never_shown() {
    let seed = "[DEFAULT]\napi_url = htps://u:hunter2@h\nemail_password: hunter3\n";
    let field =
        "[MAINMODBUS]\nmqtt_host = h\nmqtt_pass = hunter2\nmqtt_port = x\nmqtt_password: a #hunter3,\n";
    for text in [seed, field] {
        let made = import_text(text);
        assert!(made.failed());
        let json: Vec<String> = made.findings.iter().map(|finding| finding.json().to_string()).collect();
        let shown = format!("{}{json:?}", busbar_import::human(&made.findings, &made.sources, false));
        assert!(!shown.contains("hunter"), "{shown}");
    }
    let made = import_text("[DEFAULT]\napi_url = https://u:hunter2@h\n[D]\nwrong\n");
    assert!(made.has_secret, "a file that holds it is for its owner only");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = ini("f", &bytes, &Folder, &Options::default());
        let _ = map("f", &bytes, &Options::default());
    }

    /// Whatever stands in the places of values, the output is TOML, and it loads where nothing was wrong.
    #[test]
    fn whatever_the_values_the_output_is_sound(
        name in "[^\n]{0,20}", kind in "[^\n]{0,10}", label in "[^\n,]{0,12}", unit in "[^\n,]{0,6}",
        register in prop_oneof!["[0-9]{1,6}", "0x[0-9A-F]{1,4}", "[^\n]{0,6}"], factor in prop_oneof!["[0-9.]{1,5}", "[^\n]{0,5}"],
    ) {
        let text = format!(
            "[DEFAULT]\napi_url = http://h/{kind}\n[D]\nname = {name}\ntype = {kind}\nprotocol = TCP\nhost = h\nslave_id = 1\n\
             registers = {register}\nregister_types = HOLDING\ndata_types = INT16\nlabels = {label}\nunits = {unit}\n\
             scaling_factors = {factor}\n"
        );
        let made = import_text(&text);
        prop_assert!(made.toml.parse::<toml::Table>().is_ok(), "{}", made.toml);
        if !made.failed() {
            let loaded = load(&made.toml, &[]);
            prop_assert!(loaded.site.is_some(), "{}\n{}\n{text}", loaded.render(false), made.toml);
        }
    }

    /// Real files with pieces cut out, doubled and replaced: no panic, always TOML, always findings or a sound result.
    #[test]
    fn damaged_files_are_read_as_far_as_they_go(
        file in prop_oneof![Just("seed.ini"), Just("field.ini"), Just("bad.ini"), Just("bad-field.ini"), Just("meter.json")],
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..30, "[-=\\[\\]{}\\\\,;#:% \n\"a0é]{0,3}"), 1..6),
    ) {
        let mut text = std::fs::read_to_string(folder().join(file)).unwrap();
        for (at, length, put) in &cuts {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let from = at.index(starts.len());
            let to = (from + length).min(starts.len() - 1);
            text.replace_range(starts[from]..starts[to], put);
        }
        let made = if file.ends_with(".json") {
            map(file, text.as_bytes(), &Options::default())
        } else {
            import_text(&text)
        };
        prop_assert!(made.toml.parse::<toml::Table>().is_ok(), "{}", made.toml);
        for finding in &made.findings {
            prop_assert!(finding.problem.line > 0 || !finding.problem.file.is_empty() || made.findings.len() == 1, "{finding:?}");
        }
        // Hours and switches of the second generation are keys of the host that this test does not depend on.
        if !made.failed() && file == "seed.ini" {
            let loaded = load(&made.toml, &[]);
            prop_assert!(loaded.site.is_some(), "{}\n{}\n{text}", loaded.render(false), made.toml);
        }
    }
}
