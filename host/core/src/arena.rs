//! Typed numbers for points, devices, groups, ... and the lists they index.
//!
//! Invariant: an id of these types is made only by [`Arena::push`] or checked by [`Arena::find`], nothing is ever
//! removed, so indexing by an id cannot miss. Numbers that come from a plugin go through `find`.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Index, IndexMut},
};

/// A typed number.
pub(crate) trait Id: Copy {
    fn new(index: u32) -> Self;
    fn number(self) -> u32;
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(u32);
        impl Id for $name {
            fn new(index: u32) -> Self {
                Self(index)
            }
            fn number(self) -> u32 {
                self.0
            }
        }
    )*};
}

id! {
    /// Index into `Site::plugins`.
    PluginId
    /// Index into `Site::devices`; the device number of the contract.
    DeviceId
    /// The point number of the contract.
    PointId
    /// The group number of the contract.
    GroupId
    /// Index into `Site::sinks`.
    SinkId
    /// A shared line or socket, over all plugins.
    EndpointId
    /// An endpoint as one plugin serves it: what an instance is opened for.
    ChannelId
}

/// A list indexed by its own id type.
#[derive(Clone)]
pub(crate) struct Arena<I, T> {
    items: Vec<T>,
    id: PhantomData<fn() -> I>,
}

impl<I: Id, T> Arena<I, T> {
    pub(crate) const fn new() -> Self {
        Self { items: Vec::new(), id: PhantomData }
    }

    pub(crate) fn push(&mut self, item: T) -> I {
        let id = I::new(self.items.len() as u32);
        self.items.push(item);
        id
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The id for a number from outside; `None` if it was never given.
    pub(crate) fn find(&self, number: u32) -> Option<I> {
        ((number as usize) < self.items.len()).then(|| I::new(number))
    }

    /// The id for an index of the configuration.
    pub(crate) fn at(&self, index: usize) -> Option<I> {
        u32::try_from(index).ok().and_then(|number| self.find(number))
    }

    /// All ids, in order. Does not borrow the arena.
    pub(crate) fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.items.len() as u32).map(I::new)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        (0u32..).map(I::new).zip(&self.items)
    }

    pub(crate) fn values_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.items.iter_mut()
    }

    pub(crate) fn values(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "ids are made by this arena only and nothing is removed; see the module head"
)]
impl<I: Id, T> Index<I> for Arena<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        &self.items[id.number() as usize]
    }
}

#[allow(
    clippy::indexing_slicing,
    reason = "ids are made by this arena only and nothing is removed; see the module head"
)]
impl<I: Id, T> IndexMut<I> for Arena<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.items[id.number() as usize]
    }
}

impl<I, T: fmt::Debug> fmt::Debug for Arena<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.items).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_from_outside_are_checked() {
        let mut arena: Arena<PointId, &str> = Arena::new();
        let id = arena.push("a");
        assert_eq!(arena[id], "a");
        assert_eq!(arena.find(0), Some(id));
        assert_eq!(arena.find(1), None);
        assert_eq!(arena.find(u32::MAX), None);
    }
}
