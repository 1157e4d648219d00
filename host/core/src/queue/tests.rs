//! The queue by itself.

use super::*;

pub(crate) fn record(device: u32, point: u32, value: u64) -> Record {
    Record {
        sample: Sample { ts_ns: 1, bits: value, point, quality: 0, kind: 2, flags: 0 },
        value_ts_ns: 1,
        blob: None,
        accepted_ns: 0,
        device,
        commit: 0,
        class: Class::State,
        flags: 0,
        end: false,
        transient: false,
    }
}

fn next(queue: &mut Queue, window: usize, blocked: impl Fn(u32) -> bool) -> Option<Delivery> {
    queue.next_delivery(Side::Older, Limits::window(window), |device, _| blocked(device))
}

fn numbers(delivery: &Delivery) -> (u64, Vec<u64>) {
    (delivery.first, delivery.samples.samples.iter().map(|sample| sample.bits).collect())
}

#[test]
fn numbers_grow_and_never_come_back() {
    let mut queue = Queue::new();
    for value in 0..3 {
        queue.push(record(0, 0, value));
    }
    queue.end_of_poll();
    let delivery = next(&mut queue, 10, |_| false).unwrap();
    assert_eq!(numbers(&delivery), (1, vec![0, 1, 2]));
    for number in 1..4 {
        assert!(queue.settle(number).is_some());
        assert_eq!(queue.settle(number), None, "a duplicate confirmation counts nothing");
    }
    assert_eq!(queue.push(record(0, 0, 9)), 4);
    assert!(queue.is_consistent());
    assert_eq!(queue.bytes(), 48);
}

#[test]
fn a_gap_begins_where_a_poll_begins() {
    let mut queue = Queue::new();
    assert_eq!((queue.poll_from(0), queue.poll_from(4)), (None, None));
    for poll in 0..3 {
        for value in 0..3 {
            queue.push(record(poll, value as u32, value));
            assert!(queue.is_in_poll());
        }
        queue.end_of_poll();
        assert!(!queue.is_in_poll());
    }
    let begins: Vec<_> = (1..10).map(|place| queue.poll_from(place)).collect();
    let (second, third) = (Some(4), Some(7));
    assert_eq!(begins, [second, second, second, third, third, third, None, None, None]);
}

#[test]
fn a_poll_is_not_torn_by_the_window() {
    let mut queue = Queue::new();
    for poll in 0..2 {
        for value in 0..3 {
            queue.push(record(poll, value as u32, value));
        }
        queue.end_of_poll();
    }
    let delivery = next(&mut queue, 4, |_| false).unwrap();
    assert_eq!(delivery.samples.samples.len(), 3);
    assert!(next(&mut queue, 4, |_| false).is_none(), "the second poll waits for room");
    queue.settle(1);
    queue.settle(2);
    assert_eq!(next(&mut queue, 4, |_| false).unwrap().first, 4);
}

#[test]
fn a_poll_larger_than_the_window_goes_out_in_parts() {
    let mut queue = Queue::new();
    for value in 0..5 {
        queue.push(record(0, 0, value));
    }
    queue.end_of_poll();
    assert_eq!(numbers(&next(&mut queue, 2, |_| false).unwrap()), (1, vec![0, 1]));
    assert!(next(&mut queue, 2, |_| false).is_none());
}

#[test]
fn a_retry_blocks_only_its_own_device() {
    let mut queue = Queue::new();
    for value in 0..4 {
        queue.push(record((value % 2) as u32, 0, value));
        queue.end_of_poll();
    }
    while next(&mut queue, 10, |_| false).is_some() {}
    assert_eq!(queue.send_again(1).map(|again| again.device), Some(0));
    assert_eq!(queue.send_again(1), None, "only what is on its way");
    queue.push(record(0, 0, 4));
    queue.push(record(1, 0, 5));
    queue.end_of_poll();
    queue.rewind();
    assert_eq!(numbers(&next(&mut queue, 10, |device| device == 0).unwrap()), (6, vec![5]));
    assert!(next(&mut queue, 10, |device| device == 0).is_none());
    queue.rewind();
    assert_eq!(numbers(&next(&mut queue, 10, |_| false).unwrap()), (1, vec![0]));
    assert_eq!(numbers(&next(&mut queue, 10, |_| false).unwrap()), (5, vec![4]));
    assert!(queue.is_consistent());
}

#[test]
fn after_a_reconnect_everything_unconfirmed_comes_again_as_replay() {
    let mut queue = Queue::new();
    for value in 0..3 {
        queue.push(record(0, 0, value));
    }
    next(&mut queue, 10, |_| false);
    queue.settle(2);
    queue.send_all_again();
    queue.begin_replay();
    let delivery = next(&mut queue, 10, |_| false).unwrap();
    assert_eq!(numbers(&delivery), (1, vec![0]));
    assert_eq!(delivery.flags, busbar_contract::batch::REPLAY);
    assert_eq!(numbers(&next(&mut queue, 10, |_| false).unwrap()), (3, vec![2]));
    assert_eq!(queue.pending(), 2);
}

#[test]
fn texts_travel_in_the_blob_and_other_times_in_the_trailer() {
    let mut queue = Queue::new();
    let mut text = record(0, 0, 2);
    text.sample.kind = 9;
    text.blob = Some(b"ab"[..].into());
    text.value_ts_ns = -5;
    queue.push(record(0, 1, 7));
    queue.push(text);
    let mut delivery = next(&mut queue, 10, |_| false).unwrap();
    assert_eq!(delivery.flags, busbar_contract::batch::TIMES);
    assert_eq!(delivery.samples.take_times(), Ok(vec![(1, -5)]));
    let sample = delivery.samples.samples[1];
    assert_eq!(delivery.samples.value(&sample), Ok(busbar_contract::Value::Text("ab".into())));
}
