//! The one queue into the core thread, and what bounds it.
//!
//! Everything that happens goes through one bounded channel, so the core sees one sequence and each plugin's pushes
//! and events keep their order (R1). Three bounds hold at once (G9):
//! * items and bytes per instance: a plugin that floods the host is refused and slowed down, alone;
//! * bytes of all plugins together;
//! * items of the channel, of which a part is reserved for the host itself, so that operators, the API and the disk
//!   get through while plugins are refused.
//!
//! A refused batch is not lost here: the SDK (or the worker's reader) offers it again until its deadline and reports
//! what it had to give up; that report becomes `Input::Overrun` or the event GAP (R9).

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    operators::Asked,
    plugins::News,
    queue::{Queue, Urgency},
    reload::Wanted,
};
use busbar_core::{Core, Input, Now};

/// Items waiting for the core.
const ITEMS: usize = 16_384;
/// Part of [`ITEMS`] that plugins cannot use.
const RESERVED: usize = 2_048;
/// Items of one instance.
pub(crate) const INSTANCE_ITEMS: usize = 1_024;
/// Bytes of one instance; one batch may be larger when nothing else of it waits.
pub(crate) const INSTANCE_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of all plugins together.
const TOTAL_BYTES: usize = 256 * 1024 * 1024;
/// From this part of a bound on (1/4), the plugin is asked to slow down.
const CONGESTED_PART: usize = 4;
/// Bytes counted for an item beside its samples and texts.
pub(crate) const ITEM_BYTES: usize = 64;

/// A look at the core between two steps.
pub(crate) type Look = Box<dyn FnOnce(&Core, Now) + Send>;

/// Something for the core thread.
pub(crate) enum Item {
    /// From a plugin; gives back its room when taken.
    Plugin(Box<(Room, Input)>),
    /// From the host itself.
    Host(Box<Input>),
    /// A request of an operator, with the way back.
    Ask(Box<Asked>),
    /// A new configuration, with the way back.
    Reload(Box<Wanted>),
    /// Looks at the core between two steps.
    Query(Look),
    /// About plugins and instances.
    News(Box<News>),
}

const _: () = assert!(size_of::<Item>() <= 24);

/// Room taken by one item; dropping it gives the room back.
pub(crate) struct Room {
    slot: Arc<Slot>,
    bytes: usize,
    total: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.slot.items.fetch_sub(1, Ordering::AcqRel);
        self.slot.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.total.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[derive(Debug, Default)]
struct Slot {
    items: AtomicUsize,
    bytes: AtomicUsize,
}

/// How full it is for the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    Free,
    Congested,
}

/// The sending side; shared by everything that talks to the core.
pub(crate) struct Inbox {
    items: Queue<Item>,
    slots: RwLock<HashMap<(usize, u64), Arc<Slot>>>,
    total: Arc<AtomicUsize>,
}

impl Inbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { items: Queue::new(ITEMS), slots: RwLock::default(), total: Arc::default() })
    }

    /// The receiving side, for the core thread: see [`Queue::take_all`].
    pub(crate) const fn queue(&self) -> &Queue<Item> {
        &self.items
    }

    /// Takes room for an item of `bytes` of an instance; `None` = refused.
    pub(crate) fn reserve(&self, plugin: usize, instance: u64, bytes: usize) -> Option<(Room, Pressure)> {
        let bytes = bytes + ITEM_BYTES;
        let slot = self.slot(plugin, instance);
        let total = self.total.fetch_add(bytes, Ordering::AcqRel);
        let items = slot.items.fetch_add(1, Ordering::AcqRel);
        let held = slot.bytes.fetch_add(bytes, Ordering::AcqRel);
        // From here on dropping the room undoes the three additions.
        let room = Room { slot, bytes, total: Arc::clone(&self.total) };
        let alone = items == 0;
        if items >= INSTANCE_ITEMS
            || (!alone && (held + bytes > INSTANCE_BYTES || total + bytes > TOTAL_BYTES))
        {
            return None;
        }
        let congested = items >= INSTANCE_ITEMS / CONGESTED_PART
            || held > INSTANCE_BYTES / CONGESTED_PART
            || total > TOTAL_BYTES / CONGESTED_PART;
        Some((room, if congested { Pressure::Congested } else { Pressure::Free }))
    }

    /// Queues what has room. Given back when the core thread is gone, or the part for plugins is full.
    pub(crate) fn put(&self, room: Room, input: Input, urgency: Urgency) -> Option<Input> {
        match self.items.try_send(Item::Plugin(Box::new((room, input))), urgency, ITEMS - RESERVED) {
            Some(Item::Plugin(item)) => Some(item.1),
            _ => None,
        }
    }

    /// Queues an item of the host; gives it back when there is no room.
    pub(crate) fn try_send(&self, item: Item) -> Option<Item> {
        self.items.try_send(item, Urgency::Now, ITEMS)
    }

    /// Queues an item of the host and waits for room. Not for the core thread itself.
    pub(crate) fn send(&self, item: Item) {
        // Fails only when the core thread has ended; then nobody is left to tell.
        let _ = self.items.send(item);
    }

    /// Forgets an instance that never comes back.
    pub(crate) fn forget(&self, plugin: usize, instance: u64) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(&(plugin, instance));
    }

    /// Items waiting.
    pub(crate) fn depth(&self) -> usize {
        self.items.len()
    }

    fn slot(&self, plugin: usize, instance: u64) -> Arc<Slot> {
        let key = (plugin, instance);
        if let Some(slot) = self.slots.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(slot);
        }
        Arc::clone(self.slots.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

/// Closes the queue with the core thread, however it ends: nobody may wait for a receiver that is gone.
pub(crate) struct Closer(pub(crate) Arc<Inbox>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.items.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_is_bounded_and_others_are_not_touched() {
        let inbox = Inbox::new();
        let mut congested = 0;
        let taken = (0..)
            .take_while(|_| match inbox.reserve(0, 7, 0) {
                Some((room, pressure)) => {
                    congested += usize::from(pressure == Pressure::Congested);
                    inbox.put(room, Input::Tick, Urgency::Lazy).is_none()
                }
                None => false,
            })
            .count();
        assert_eq!(taken, INSTANCE_ITEMS);
        assert_eq!(congested, INSTANCE_ITEMS - INSTANCE_ITEMS / CONGESTED_PART);
        assert!(inbox.reserve(0, 8, 0).is_some());
        assert!(inbox.reserve(1, 7, 0).is_some());
        let mut all = std::collections::VecDeque::new();
        inbox.queue().take_all(&mut all, None);
        all.truncate(INSTANCE_ITEMS - 1);
        assert!(inbox.reserve(0, 7, 0).is_some());
    }

    #[test]
    fn bytes_are_bounded_but_one_large_batch_passes_alone() {
        let inbox = Inbox::new();
        let (large, _) = inbox.reserve(0, 1, INSTANCE_BYTES * 2).unwrap();
        assert!(inbox.reserve(0, 1, 1).is_none());
        drop(large);
        assert!(inbox.reserve(0, 1, 1).is_some());
        let rooms: Vec<Room> = (1..100)
            .map_while(|instance| inbox.reserve(0, instance, INSTANCE_BYTES / 2))
            .map(|(room, _)| room)
            .collect();
        // Alone is always possible, so the sum is only bounded together with the number of instances ...
        assert_eq!(rooms.len(), 99);
        // ... but nobody gets a second one.
        assert!(inbox.reserve(0, 1, 1).is_none());
        drop(rooms);
        assert!(inbox.reserve(0, 1, 1).is_some());
        assert_eq!(inbox.total.load(Ordering::Acquire), 0);
    }

    #[test]
    fn the_host_gets_through_when_plugins_are_refused() {
        let inbox = Inbox::new();
        let mut instance = 1;
        loop {
            match inbox.reserve(0, instance, 0) {
                Some((room, _)) => {
                    if inbox.put(room, Input::Tick, Urgency::Lazy).is_some() {
                        break;
                    }
                }
                None => instance += 1,
            }
        }
        assert!(inbox.try_send(Item::Host(Box::new(Input::Tick))).is_none());
        assert_eq!(inbox.depth(), ITEMS - RESERVED + 1);
    }
}
