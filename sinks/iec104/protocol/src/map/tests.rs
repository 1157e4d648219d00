//! Tables of the mapping: every quality bit, every kind with its limits.

use super::*;

type Q = SourceQuality;

fn sent(bits: u16, policy: Policy) -> Qds {
    quality(SourceQuality(bits), policy).unwrap().qds
}

#[test]
fn each_quality_bit_has_its_place() {
    let both = Qds::INVALID.with(Qds::NOT_TOPICAL);
    for (bits, expected) in [
        (0, Qds::GOOD),
        (Q::INVALID, Qds::INVALID),
        (0b10, Qds::INVALID),
        (Q::QUESTIONABLE, Qds::NOT_TOPICAL),
        (Q::OVERFLOW, Qds::OVERFLOW),
        (Q::OUT_OF_RANGE, Qds::GOOD),
        (Q::BAD_REFERENCE | Q::INVALID, Qds::INVALID),
        (Q::OSCILLATORY | Q::QUESTIONABLE, Qds::NOT_TOPICAL),
        (Q::FAILURE, Qds::INVALID),
        (Q::OLD_DATA, Qds::NOT_TOPICAL),
        (Q::INCONSISTENT | Q::QUESTIONABLE, Qds::NOT_TOPICAL),
        (Q::INACCURATE, Qds::GOOD),
        (Q::SUBSTITUTED, Qds::SUBSTITUTED),
        (Q::TEST, Qds::INVALID),
        (Q::OPERATOR_BLOCKED, Qds::BLOCKED),
        (Q::COMM_LOST | Q::INVALID, both),
        (Q::COMM_LOST | Q::INVALID | Q::SUBSTITUTED, both.with(Qds::SUBSTITUTED)),
        (Q::CLOCK_UNSYNCED, Qds::GOOD),
    ] {
        assert_eq!(sent(bits, Policy::default()), expected, "{bits:#b}");
    }
}

#[test]
fn what_utilities_settle_differently() {
    let policy = Policy { questionable_as_invalid: true, ..Policy::default() };
    assert_eq!(sent(Q::QUESTIONABLE, policy), Qds::INVALID.with(Qds::NOT_TOPICAL));
    let policy = Policy { out_of_range_as_overflow: true, ..Policy::default() };
    assert_eq!(sent(Q::OUT_OF_RANGE | Q::QUESTIONABLE, policy), Qds::OVERFLOW.with(Qds::NOT_TOPICAL));
    let policy = Policy { oscillatory_as_blocked: true, ..Policy::default() };
    assert_eq!(sent(Q::OSCILLATORY, policy), Qds::BLOCKED);
    let policy = Policy { test: TestPolicy::Suppress, ..Policy::default() };
    assert_eq!(quality(SourceQuality(Q::TEST), policy), None);
    assert!(quality(SourceQuality(0), policy).is_some());
    let policy = Policy { test: TestPolicy::Pass, ..Policy::default() };
    assert_eq!(quality(SourceQuality(Q::TEST), policy), Some(Sent { qds: Qds::GOOD, test: true }));
    assert_eq!(quality(SourceQuality(0), policy), Some(Sent { qds: Qds::GOOD, test: false }));
}

#[test]
fn values_and_their_limits() {
    let (good, iv, ov) = (Qds::GOOD, Qds::INVALID, Qds::OVERFLOW);
    for (kind, value, expected) in [
        (Kind::Single, Value::Bool(true), Element::Single(true, good)),
        (Kind::Single, Value::Double(1), Element::Single(false, good)),
        (Kind::Single, Value::Double(2), Element::Single(true, good)),
        (Kind::Single, Value::Double(3), Element::Single(false, iv)),
        (Kind::Single, Value::Int(2), Element::Single(false, iv)),
        (Kind::Single, Value::None, Element::Single(false, iv)),
        (Kind::Double, Value::Double(0), Element::Double(0, good)),
        (Kind::Double, Value::Double(1), Element::Double(1, good)),
        (Kind::Double, Value::Double(2), Element::Double(2, good)),
        (Kind::Double, Value::Double(3), Element::Double(3, good)),
        (Kind::Double, Value::Bool(false), Element::Double(1, good)),
        (Kind::Double, Value::Bool(true), Element::Double(2, good)),
        (Kind::Double, Value::Int(4), Element::Double(0, iv)),
        (Kind::Step, Value::Step(-64, true), Element::Step(-64, true, good)),
        (Kind::Step, Value::Int(64), Element::Step(63, false, ov)),
        (Kind::Step, Value::Int(-65), Element::Step(-64, false, ov)),
        (Kind::Bits, Value::Bits(u32::MAX), Element::Bits(u32::MAX, good)),
        (Kind::Bits, Value::Int(-1), Element::Bits(0, iv)),
        (Kind::Bits, Value::Uint(1 << 32), Element::Bits(0, iv)),
        (Kind::Scaled, Value::Float(2.5), Element::Scaled(3, good)),
        (Kind::Scaled, Value::Float(-2.5), Element::Scaled(-3, good)),
        (Kind::Scaled, Value::Int(32_767), Element::Scaled(32_767, good)),
        (Kind::Scaled, Value::Int(32_768), Element::Scaled(32_767, ov)),
        (Kind::Scaled, Value::Int(i64::MIN), Element::Scaled(-32_768, ov)),
        (Kind::Scaled, Value::Float(f64::NAN), Element::Scaled(0, iv)),
        (Kind::Normalised, Value::Float(50.0), Element::Normalised(16_384, good)),
        (Kind::Normalised, Value::Float(-100.0), Element::Normalised(-32_768, good)),
        (Kind::Normalised, Value::Float(100.0), Element::Normalised(32_767, ov)),
        (Kind::Float, Value::Float(231.4), Element::Float(231.4, good)),
        (Kind::Float, Value::Float(1e300), Element::Float(f32::MAX, ov)),
        (Kind::Float, Value::Float(f64::NEG_INFINITY), Element::Float(f32::MIN, ov)),
        (Kind::Float, Value::Float(f64::NAN), Element::Float(0.0, iv)),
        (Kind::Float, Value::None, Element::Float(0.0, iv)),
    ] {
        assert_eq!(element(kind, value, 100.0, good), Some(expected), "{kind:?} {value:?}");
    }
    let lost = iv.with(Qds::NOT_TOPICAL);
    let kept = element(Kind::Float, Value::Float(5.0), 1.0, lost);
    assert_eq!(kept, Some(Element::Float(5.0, lost)), "the last value is kept");
    assert_eq!(element(Kind::SingleCommand, Value::Bool(true), 1.0, good), None);
}

#[test]
fn counters_run_over_their_end() {
    let read = |value, previous| counter(value, previous, false, false, Qds::GOOD);
    assert_eq!(read(Value::Int(7), None), Counter { value: 7, ..Counter::default() });
    let end = i64::from(i32::MAX);
    assert_eq!(read(Value::Int(end), Some(7)).value, i32::MAX);
    let over = read(Value::Int(end + 1), Some(end));
    assert_eq!((over.value, over.carry), (i32::MIN, true));
    assert!(!read(Value::Int(end + 2), Some(end + 1)).carry);
    assert!(read(Value::Float(1.5), None).invalid);
    assert!(read(Value::Uint(u64::MAX), None).invalid);
    let marked = counter(Value::Uint(3), None, true, true, Qds::INVALID);
    assert_eq!(marked, Counter { value: 3, sequence: 0, carry: true, adjusted: true, invalid: true });
}

#[test]
fn commands_become_values() {
    for (value, expected) in [
        (CommandValue::Single(true), Some(Value::Bool(true))),
        (CommandValue::Double(0), None),
        (CommandValue::Double(1), Some(Value::Double(1))),
        (CommandValue::Double(2), Some(Value::Double(2))),
        (CommandValue::Double(3), None),
        (CommandValue::Step(0), None),
        (CommandValue::Step(1), Some(Value::Step(-1, false))),
        (CommandValue::Step(2), Some(Value::Step(1, false))),
        (CommandValue::Step(3), None),
        (CommandValue::Normalised(-16_384), Some(Value::Float(-50.0))),
        (CommandValue::Scaled(-5), Some(Value::Int(-5))),
        (CommandValue::Float(f32::NAN), None),
        (CommandValue::Float(0.5), Some(Value::Float(0.5))),
        (CommandValue::Bits(9), Some(Value::Bits(9))),
    ] {
        assert_eq!(command(value, 100.0), expected, "{value:?}");
    }
}
