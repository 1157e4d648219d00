//! Selections (SEMANTICS 6): one belongs to (sink, client, point). It ends by operate, by cancel, by time, by the loss of
//! that client's sink, of the device, of the plugin, and is then cancelled at the device where the device holds it.

use std::collections::BTreeMap;

use busbar_contract::{Action, Origin, Request, Value, request::Command as CommandBody};

use crate::{
    Core,
    arena::{DeviceId, Id, PointId},
    output::LogLevel,
    state::{Queued, Selection, Work},
    time::ns,
    timers::Timer,
};

/// The selections that stand.
pub(crate) type Selections = BTreeMap<PointId, Selection>;

impl Core {
    /// The point is selected by somebody else.
    pub(crate) fn selected_by_other(&self, point: PointId, origin: &Origin) -> bool {
        self.selections.get(&point).is_some_and(|selection| !same_owner(&selection.origin, origin))
    }

    /// The point is selected by this client.
    pub(crate) fn selected_by(&self, point: PointId, origin: &Origin) -> bool {
        self.selections.get(&point).is_some_and(|selection| same_owner(&selection.origin, origin))
    }

    /// The selection stands from now on.
    pub(crate) fn select(&mut self, point: PointId, origin: Origin, instance: u64, at_device: bool) {
        let until_ns = self.now.mono_ns + ns(self.site.host.select_timeout);
        let until_ns = self.timers.arm(until_ns, Timer::Select(point));
        self.selections.insert(point, Selection { origin, instance, until_ns, at_device });
    }

    pub(crate) fn selection_timer(&mut self, point: PointId) {
        let over =
            self.selections.get(&point).is_some_and(|selection| selection.until_ns <= self.now.mono_ns);
        // A command that runs on the selection decides it by itself.
        if over && !self.busy.contains_key(&point) {
            self.end_selection(point, "its time is over");
        } else if over && let Some(selection) = self.selections.get(&point) {
            let again = selection.until_ns.max(self.now.mono_ns + crate::time::SECOND);
            let until_ns = self.timers.arm(again, Timer::Select(point));
            if let Some(selection) = self.selections.get_mut(&point) {
                selection.until_ns = until_ns;
            }
        }
    }

    /// Ends a selection and cancels it at the device.
    pub(crate) fn end_selection(&mut self, point: PointId, why: &str) {
        let Some(selection) = self.selections.remove(&point) else { return };
        let Some(device) = self.points[point].device else { return };
        if selection.at_device && self.is_online(device) {
            let origin = selection.origin;
            let audit = self.next_command;
            self.next_command += 1;
            self.audit_note(audit, "cancel", point, &origin, &format!("selection ended: {why}"));
            let session = self.devices[device].session;
            let work = Work::CancelSelection { point, origin };
            self.cancels.insert(audit, Queued { device, session, work });
        }
    }

    /// The audit line of a cancel is on disk: it leaves. Without its line nothing leaves, and the device's own time-out ends
    /// the selection there.
    pub(crate) fn cancel_audited(&mut self, cancel: Queued, error: &str) {
        if !error.is_empty() {
            let name = self.device_name(cancel.device.number()).unwrap_or_default().to_owned();
            let text =
                format!("a selection is not cancelled, because the audit log cannot be written: {error}");
            return self.log(LogLevel::Error, ("audit", 0), vec![("device", name)], text);
        }
        if self.is_online(cancel.device) && self.devices[cancel.device].session == cancel.session {
            self.ask(cancel.device, cancel.work);
        }
    }

    /// The client's sink is gone.
    pub(crate) fn drop_selections_of(&mut self, instance: u64) {
        for point in self.selections_where(|selection, _| selection.instance == instance && instance != 0) {
            self.end_selection(point, "its client is gone");
        }
    }

    /// The device is gone: nothing can be cancelled there.
    pub(crate) fn forget_selections_at(&mut self, device: DeviceId) {
        let points = &self.points;
        self.selections.retain(|point, _| points[*point].device != Some(device));
    }

    /// The device's driver is about to go: what is selected there is cancelled.
    pub(crate) fn end_selections_at(&mut self, device: DeviceId, why: &str) {
        let points = self.selections.keys().copied().filter(|id| self.points[*id].device == Some(device));
        // A command that runs on a selection decides it by itself.
        let free: Vec<PointId> = points.filter(|id| !self.busy.contains_key(id)).collect();
        for point in free {
            self.end_selection(point, why);
        }
    }

    fn selections_where(&self, which: impl Fn(&Selection, PointId) -> bool) -> Vec<PointId> {
        self.selections
            .iter()
            .filter(|(point, selection)| which(selection, **point))
            .map(|(point, _)| *point)
            .collect()
    }

    /// CANCEL of a selection that the host ends.
    pub(crate) fn cancel_body(
        &self,
        device: DeviceId,
        point: PointId,
        origin: &Origin,
        deadline_ms: u64,
    ) -> Request {
        Request::Command(CommandBody {
            device: device.number(),
            point: point.number(),
            action: Action::Cancel,
            value: Value::None,
            origin: origin.clone(),
            qualifier: 0,
            interlock_check: false,
            synchro_check: false,
            test: false,
            issued_ns: self.now.wall_ns,
            deadline_ms,
        })
    }
}

/// A selection belongs to (sink, client).
pub(crate) fn same_owner(a: &Origin, b: &Origin) -> bool {
    a.sink == b.sink && a.client == b.client
}
