//! Engineering files: the same model, points and controls as from the device; damaged files.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the whole binary is tests; clippy allows it only inside functions marked as such"
)]

use busbar_iec61850::control::Control;
use busbar_iec61850::listing::list;
use busbar_iec61850::point::{Cdc, resolve};
use busbar_iec61850::subscription::Feed;
use busbar_iec61850::{Address, Name, scl};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const FILE: &str = include_str!("scl/bay.cid");

fn bay() -> scl::Described {
    scl::read(FILE, None).unwrap().remove(0)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

#[test]
fn a_file_gives_what_the_device_would() {
    let bay = bay();
    assert_eq!((bay.name.as_str(), bay.host.as_deref()), ("BCU1", Some("192.0.2.10")));
    assert_eq!((bay.model.identity.vendor.as_str(), bay.model.identity.revision.as_str()), ("nobody", "3"));
    for (text, cdc, item) in [
        ("BCU1CTRL/CSWI1.Pos", Cdc::Dpc, "CSWI1$ST$Pos$stVal"),
        ("BCU1CTRL/MMXU1.TotW", Cdc::Mv, "MMXU1$MX$TotW$mag$f"),
        ("BCU1CTRL/MMXU1.A.phsB", Cdc::Cmv, "MMXU1$MX$A$phsB$cVal$mag$f"),
        ("BCU1CTRL/LLN0.Mod", Cdc::Ens, "LLN0$ST$Mod$stVal"),
    ] {
        let point = resolve(&bay.model, &address(text), None).unwrap();
        assert_eq!((point.cdc, point.value.name.item.as_str()), (cdc, item));
        assert!(point.quality.is_some() && point.time.is_some());
    }
    let control = Control::resolve(&bay.model, &address("BCU1CTRL/CSWI1.Pos")).unwrap();
    assert_eq!(control.model_name, Some(Name::new("BCU1CTRL", "CSWI1$CF$Pos$ctlModel")));
    let addresses: Vec<_> = list(&bay.model).into_iter().map(|offer| offer.address).collect();
    assert_eq!(
        addresses,
        [
            "BCU1CTRL/LLN0.Mod",
            "BCU1CTRL/CSWI1.Pos",
            "BCU1CTRL/MMXU1.TotW",
            "BCU1CTRL/MMXU1.A.phsA",
            "BCU1CTRL/MMXU1.A.phsB"
        ]
    );
}

#[test]
fn data_sets_blocks_and_texts_are_found() {
    let bay = bay();
    let set = bay.model.data_set(&Name::new("BCU1CTRL", "LLN0$ds")).unwrap();
    let items: Vec<_> = set.members.iter().flatten().map(|name| name.item.as_str()).collect();
    assert_eq!(items, ["CSWI1$ST$Pos", "MMXU1$MX$TotW$mag$f", "MMXU1$MX$TotW$q", "MMXU1$MX$A$phsB$cVal"]);
    let blocks: Vec<_> = bay.model.report_blocks().into_iter().map(|name| name.item).collect();
    assert_eq!(blocks, ["LLN0$BR$brcb01", "LLN0$BR$brcb02", "LLN0$BR$brcb03", "LLN0$RP$urcb"]);
    let points = ["CSWI1.Pos", "MMXU1.TotW", "MMXU1.A.phsB"]
        .map(|path| resolve(&bay.model, &address(&format!("BCU1CTRL/{path}")), None).unwrap());
    let (_, left_out) = Feed::new(set.members.clone(), points.into_iter().enumerate());
    assert_eq!(left_out, [2], "its quality is not in the data set");
    let texts = &bay.labels[&Name::new("BCU1CTRL", "LLN0$ST$Mod$stVal")];
    assert_eq!(texts[..], [(1, "on".to_owned()), (5, "off".to_owned())]);
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(scl::read(FILE, Some("BCU9")).unwrap_err(), "the file has no IED BCU9; it has BCU1");
    assert!(scl::read("", None).unwrap_err().starts_with("expected an SCL file"));
    assert!(scl::read("<html/>", None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(61850), ..ProptestConfig::default() })]

    /// Damaged files are read or refused, and what is read can be listed.
    #[test]
    fn damaged_files_are_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0x20_u8..0x7f), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut text = FILE.as_bytes().to_vec();
        for (place, octet) in damage {
            let place = place.index(text.len());
            text[place] = octet;
        }
        if let Some(cut) = cut {
            text.truncate(cut.index(text.len()));
        }
        if let Ok(ieds) = scl::read(std::str::from_utf8(&text).unwrap(), None) {
            for ied in ieds {
                for offer in list(&ied.model) {
                    prop_assert!(resolve(&ied.model, &address(&offer.address), None).is_ok());
                }
            }
        }
    }

    /// Types that refer to each other end.
    #[test]
    fn types_in_circles_end(from in 0_usize..4, to in 0_usize..4) {
        let kinds = ["Analogue_T", "Vector_T", "Unit_T", "Origin_T"];
        let old = format!("<DAType id=\"{}\">", kinds[from]);
        let new = format!("{old}<BDA name=\"loop\" bType=\"Struct\" type=\"{}\"/>", kinds[to]);
        let text = FILE.replace(&old, &new).replace(
            "<SDO name=\"phsA\" type=\"CMV_T\"/>",
            "<SDO name=\"phsA\" type=\"WYE_T\"/>",
        );
        let _ = scl::read(&text, None).map(|ieds| ieds.iter().map(|ied| list(&ied.model).len()).sum::<usize>());
    }
}
