//! Ranges of records that are settled, for the host.

use busbar_driver_api::contract::binary::Ack;

/// Appends a range; a neighbour of the last one with the same end joins it.
pub fn push(acks: &mut Vec<Ack>, ack: Ack) {
    if let Some(last) = acks.last_mut()
        && last.first.checked_add(u64::from(last.count)) == Some(ack.first)
        && (last.verdict, last.reason) == (ack.verdict, ack.reason)
        && let Some(sum) = last.count.checked_add(ack.count)
    {
        last.count = sum;
        return;
    }
    acks.push(ack);
}

#[cfg(test)]
mod tests {
    use super::*;
    use busbar_driver_api::Verdict;

    #[test]
    fn neighbours_join() {
        let ack = |first, count, verdict, reason| Ack { first, count, verdict, reason };
        let mut acks = Vec::new();
        for next in [
            ack(1, 2, Verdict::Delivered, 0),
            ack(3, 4, Verdict::Delivered, 0),
            ack(7, 1, Verdict::Rejected, 1),
            ack(8, 1, Verdict::Rejected, 2),
            ack(10, u32::MAX, Verdict::Delivered, 0),
            ack(10 + u64::from(u32::MAX), 1, Verdict::Delivered, 0),
            ack(u64::MAX, 1, Verdict::Delivered, 0),
            ack(0, 1, Verdict::Delivered, 0),
        ] {
            push(&mut acks, next);
        }
        let ranges: Vec<(u64, u32)> = acks.iter().map(|ack| (ack.first, ack.count)).collect();
        let far = 10 + u64::from(u32::MAX);
        assert_eq!(ranges, [(1, 6), (7, 1), (8, 1), (10, u32::MAX), (far, 1), (u64::MAX, 1), (0, 1)]);
    }
}
