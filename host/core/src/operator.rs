//! Operators (SEMANTICS 9): lock and unlock, block, unblock, substitute, maintenance, fresh read, browse, frame log.
//! What is switched is audited and stored, and holds after a restart.

use busbar_contract::{Origin, Request, Value, request::FrameLog, value::rfc3339};
use serde_json::{Value as Json, json};

use crate::{
    Core, Output,
    arena::Id,
    input::{Ask, Operator},
    model::CommandMode,
    output::{LogLevel, Reply, StoreAction},
    state::StoreWait,
    switches,
    table::Stamp,
};

/// Most points that may be blocked or substituted at once (G9).
const MAX_SWITCHED: usize = 100_000;

impl Core {
    pub(crate) fn operator(&mut self, operator: Operator) {
        let id = operator.id;
        match operator.ask {
            Ask::Command(command) => self.operator_command(id, command),
            Ask::Read { device, points, deadline_ms } => {
                self.operator_read(id, &device, &points, deadline_ms)
            }
            Ask::Browse { device, arguments, deadline_ms } => {
                self.operator_browse(id, &device, arguments, deadline_ms);
            }
            Ask::Lock(origin) => self.lock(id, true, &origin),
            Ask::Unlock(origin) => self.lock(id, false, &origin),
            Ask::Block(point, origin) => self.overlay(id, &point, Some(None), &origin),
            Ask::Unblock(point, origin) => self.overlay(id, &point, None, &origin),
            Ask::Substitute(point, value, origin) => self.overlay(id, &point, Some(Some(value)), &origin),
            Ask::Maintenance(device, on, origin) => self.maintenance(id, &device, on, &origin),
            Ask::Pause(device, on, origin) => self.pause(id, &device, on, &origin),
            Ask::FrameLog(device, on) => self.frame_log(id, &device, on),
        }
    }

    /// Commands are locked by an operator or by configuration.
    #[must_use]
    pub fn commands_locked(&self) -> bool {
        self.switches.locked.unwrap_or(self.site.host.commands == CommandMode::Locked)
    }

    fn lock(&mut self, id: u64, locked: bool, origin: &Origin) {
        if locked {
            // At once: a lock that cannot be stored is in force all the same. It overtakes an unlock that is being stored.
            self.unlocking = None;
            self.switches.locked = Some(true);
            self.set_locked_point();
            self.switched(id, "lock", "", origin, &Json::Null);
        } else {
            // Not before it is on disk: after a restart nobody may find commands locked that were enabled, or the reverse.
            self.unlocking = Some(self.next_command);
            self.switched(id, "unlock", "", origin, &Json::Null);
        }
    }

    fn overlay(&mut self, id: u64, name: &str, what: Option<Option<Json>>, origin: &Origin) {
        let Some(point) = self.named(name).filter(|point| self.points[*point].device.is_some()) else {
            return self.failed(id, &format!("no point named {name}"));
        };
        if self.switches.blocked.len() + self.switches.substituted.len() >= MAX_SWITCHED && what.is_some() {
            return self.failed(id, "too many points are blocked or substituted");
        }
        if let Some(Some(json)) = &what
            && substitute_value(self.shown_kind(point), json) == Value::None
        {
            return self.failed(id, &format!("expected a value of the point's kind, found {json}"));
        }
        self.switches.blocked.remove(name);
        self.switches.substituted.remove(name);
        self.switches.substituted_kinds.remove(name);
        let stamp = Stamp::new(self.now.wall_ns, self.clock_synced);
        let (event, value) = match what {
            None => {
                self.points[point].uncover(stamp);
                ("unblock", Json::Null)
            }
            Some(None) => {
                self.switches.blocked.insert(name.to_owned());
                self.points[point].block(stamp);
                ("block", Json::Null)
            }
            Some(Some(json)) => {
                let value = substitute_value(self.shown_kind(point), &json);
                self.points[point].substitute(&value, stamp);
                self.switches.substituted.insert(name.to_owned(), json.clone());
                self.switches.substituted_kinds.insert(name.to_owned(), value.kind().as_str().to_owned());
                ("substitute", json)
            }
        };
        self.emit_host(point);
        self.end_of_poll();
        if let Some(group) = self.points[point].group {
            self.read_now(group);
        }
        self.switched(id, event, name, origin, &value);
    }

    fn shown_kind(&self, point: crate::arena::PointId) -> Option<busbar_contract::Kind> {
        Some(self.points[point].cell.kind).filter(|kind| *kind != busbar_contract::Kind::None)
    }

    fn maintenance(&mut self, id: u64, device: &str, on: bool, origin: &Origin) {
        let Some(number) = self.device_named(device) else {
            return self.failed(id, &format!("no device named {device}"));
        };
        self.switches.maintenance.insert(device.to_owned(), on);
        self.judge_switches(number);
        self.switched(id, "maintenance", device, origin, &Json::Bool(on));
    }

    fn pause(&mut self, id: u64, device: &str, on: bool, origin: &Origin) {
        let Some(number) = self.device_named(device) else {
            return self.failed(id, &format!("no device named {device}"));
        };
        self.switches.paused.insert(device.to_owned(), on);
        self.judge_switches(number);
        self.switched(id, "pause", device, origin, &Json::Bool(on));
    }

    fn frame_log(&mut self, id: u64, device: &str, on: bool) {
        let Some(number) = self.device_named(device) else {
            return self.failed(id, &format!("no device named {device}"));
        };
        self.devices[number].frame_log = on;
        self.tell_frame_log(number);
        self.done(id);
    }

    /// The driver learns the switch, now or when the device joins its instance.
    pub(crate) fn tell_frame_log(&mut self, device: crate::arena::DeviceId) {
        let state = &self.devices[device];
        let Some(channel) = state.channel.filter(|_| state.attached) else { return };
        let body = FrameLog { device: device.number(), on: state.frame_log };
        self.tell(self.channels[channel].instance, 0, Request::FrameLog(body));
    }

    /// Audited and stored; answered when it is on disk.
    fn switched(&mut self, id: u64, event: &str, about: &str, origin: &Origin, value: &Json) {
        let line = json!({
            "ts": rfc3339(self.now.wall_ns), "event": event, "about": about, "value": value, "origin": origin,
        });
        self.out.push(Output::Audit { audit: 0, line });
        self.store_switches(StoreWait::Switches { id: Some(id) });
        self.log(LogLevel::Info, ("switch", self.next_command), vec![], format!("operator: {event} {about}"));
    }

    /// Writes the switches as they are to be: with an unlock that waits for the disk.
    pub(crate) fn store_switches(&mut self, wait: StoreWait) {
        let store = self.next_command;
        self.next_command += 1;
        let mut wanted = self.switches.clone();
        if self.unlocking.is_some() {
            wanted.locked = Some(false);
        }
        self.stores.insert(store, wait);
        self.out.push(Output::Store {
            store,
            owner: switches::OWNER.into(),
            key: switches::KEY.into(),
            action: StoreAction::Put(wanted.to_bytes()),
        });
    }

    /// The switches are on disk, or not: only now the operator hears of it.
    pub(crate) fn switches_stored(&mut self, store: u64, id: Option<u64>, error: Option<String>) {
        let unlocking = self.unlocking == Some(store);
        if unlocking {
            self.unlocking = None;
        }
        let Some(error) = error else {
            if unlocking {
                self.switches.locked = Some(false);
                self.set_locked_point();
            }
            if let Some(id) = id {
                self.done(id);
            }
            return;
        };
        let consequence =
            if unlocking { "commands stay locked" } else { "the switch holds until the next restart only" };
        let text = format!("operator switches could not be stored, {consequence}: {error}");
        if unlocking {
            // A document written meanwhile may say unlocked.
            self.store_switches(StoreWait::Switches { id: None });
        }
        if let Some(id) = id {
            self.failed(id, &text);
        }
        self.log(LogLevel::Error, ("store", 0), vec![], text);
    }

    fn done(&mut self, id: u64) {
        self.out.push(Output::Reply { id, reply: Reply::Done });
    }

    pub(crate) fn failed(&mut self, id: u64, text: &str) {
        self.out.push(Output::Reply { id, reply: Reply::Failed(text.to_owned()) });
    }
}

/// A value entered by hand, as the kind the point has, or as JSON tells it.
pub(crate) fn substitute_value(kind: Option<busbar_contract::Kind>, json: &Json) -> Value {
    use busbar_contract::Kind;
    let kind = kind.unwrap_or(match json {
        Json::Bool(_) => Kind::Bool,
        Json::Number(_) => Kind::Float64,
        Json::String(_) => Kind::Text,
        _ => Kind::None,
    });
    Value::from_json(kind, json).unwrap_or(Value::None)
}
