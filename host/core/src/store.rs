//! Durable state of drivers and sinks (SEMANTICS 7): a key-value store per device or sink, kept by the edge. A put is
//! answered after it is on disk.
//!
//! The contract knows two answers to a question: a value, or none. So that "none" never hides that something was lost, what
//! cannot be answered is told to the operators: a log line, a counter (`busbar_state_lost_total`), and a state of the device or
//! sink ([`Core::lost_state`]) until its plugin stores that key anew.

use busbar_contract::{
    Request,
    event::StateEntry,
    request::AnswerTo,
    value::{hex, unhex},
};

use crate::{
    Core, Output,
    arena::Id,
    output::{LogLevel, StoreAction},
    state::{Owner, StoreWait},
};

/// Longest key, bytes.
const MAX_KEY: usize = 128;
/// Largest value, bytes.
const MAX_VALUE: usize = 1 << 20;
/// Keys that are remembered as lost (G9).
const MAX_LOST: usize = 1_000;
/// Puts and gets of one instance that may be open (G9).
const MAX_OPEN: u32 = 64;

impl Core {
    pub(crate) fn state_put(&mut self, instance: u64, request: u64, entry: StateEntry) {
        let action = match entry.value.as_deref().map(unhex) {
            None => Ok(StoreAction::Delete),
            Some(Some(bytes)) if bytes.len() <= MAX_VALUE => Ok(StoreAction::Put(bytes)),
            Some(Some(bytes)) => Err(format!("expected at most {MAX_VALUE} bytes, found {}", bytes.len())),
            Some(None) => Err("expected hex text".to_owned()),
        };
        let checked = self.store_owner(instance, &entry).and_then(|owner| Ok((owner, action?)));
        match checked {
            Ok((owner, action)) => {
                let wait = StoreWait::Put { instance, request, place: (owner.clone(), entry.key.clone()) };
                self.store_begin(instance, wait, owner, entry.key, action);
            }
            Err(error) => self.tell(instance, request, Request::Answer(AnswerTo::StatePut { error })),
        }
    }

    pub(crate) fn state_get(&mut self, instance: u64, request: u64, entry: &StateEntry) {
        match self.store_owner(instance, entry) {
            Ok(owner) => {
                let place = (owner.clone(), entry.key.clone());
                let wait = StoreWait::Get { instance, request, place };
                self.store_begin(instance, wait, owner, entry.key.clone(), StoreAction::Get);
            }
            Err(_) => self.tell(instance, request, Request::Answer(AnswerTo::StateGet { value: None })),
        }
    }

    /// Whose state it is; a plugin reaches only that of its own devices and sinks.
    fn store_owner(&self, instance: u64, entry: &StateEntry) -> Result<String, String> {
        let state = self.instances.get(&instance).ok_or("the instance does not exist")?;
        if state.stores >= MAX_OPEN {
            return Err(format!("at most {MAX_OPEN} requests for stored state at once"));
        }
        if entry.key.is_empty() || entry.key.len() > MAX_KEY {
            return Err(format!("expected a key of 1 to {MAX_KEY} bytes, found {}", entry.key.len()));
        }
        match (state.owner, entry.device) {
            (Owner::Channel(channel), Some(number)) => self
                .devices
                .find(number)
                .filter(|device| self.devices[*device].channel == Some(channel))
                .and_then(|_| self.device_name(number))
                .map(|name| format!("device/{name}"))
                .ok_or_else(|| format!("device {number} is not served by this instance")),
            (Owner::Channel(_), None) => Err("expected a device number".into()),
            (Owner::Sink(sink), _) => {
                let config = self.site.sinks.get(sink.number() as usize).ok_or("no such sink")?;
                Ok(format!("sink/{}", config.name))
            }
        }
    }

    fn store_begin(
        &mut self,
        instance: u64,
        wait: StoreWait,
        owner: String,
        key: String,
        action: StoreAction,
    ) {
        let store = self.next_command;
        self.next_command += 1;
        if let Some(state) = self.instances.get_mut(&instance) {
            state.stores += 1;
        }
        self.stores.insert(store, wait);
        self.out.push(Output::Store { store, owner, key, action });
    }

    pub(crate) fn stored(&mut self, store: u64, result: Result<Option<Vec<u8>>, String>) {
        let Some(wait) = self.stores.remove(&store) else { return };
        let (instance, request, answer) = match (wait, result) {
            (StoreWait::Switches { id }, result) => return self.switches_stored(store, id, result.err()),
            (StoreWait::Put { instance, request, place }, result) => {
                if result.is_ok() {
                    self.lost_state.remove(&place);
                }
                (instance, request, AnswerTo::StatePut { error: result.err().unwrap_or_default() })
            }
            (StoreWait::Get { instance, request, place }, Ok(value)) => {
                self.lost_state.remove(&place);
                (instance, request, AnswerTo::StateGet { value: value.map(|bytes| hex(&bytes)) })
            }
            (StoreWait::Get { instance, request, place }, Err(error)) => {
                self.state_is_lost(place, error);
                (instance, request, AnswerTo::StateGet { value: None })
            }
        };
        if let Some(state) = self.instances.get_mut(&instance) {
            state.stores = state.stores.saturating_sub(1);
        }
        self.tell(instance, request, Request::Answer(answer));
    }

    fn state_is_lost(&mut self, place: (String, String), error: String) {
        let (owner, key) = &place;
        let text = format!(
            "the stored state {key} of {owner} cannot be read, its plugin begins without it: {error}"
        );
        self.log(LogLevel::Error, ("store", 0), vec![("owner", owner.clone())], text);
        self.lost_state_total += 1;
        if self.lost_state.len() < MAX_LOST || self.lost_state.contains_key(&place) {
            self.lost_state.insert(place, error);
        }
    }

    /// What could not be answered of the stored state of `owner` (`device/NAME`, `sink/NAME`) and was not stored anew since:
    /// key and reason.
    pub fn lost_state(&self, owner: &str) -> impl Iterator<Item = (&str, &str)> {
        let from = (owner.to_owned(), String::new());
        let owner = owner.to_owned();
        let found = self.lost_state.range(from..).take_while(move |((of, _), _)| *of == owner);
        found.map(|((_, key), error)| (key.as_str(), error.as_str()))
    }
}
