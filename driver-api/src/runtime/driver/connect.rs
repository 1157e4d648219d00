//! Sessions: opened for the first device that connects, closed with the last.

use busbar_contract::{Event, event::Done, request::OfDevice};
use tracing::Instrument;

use super::{CALLBACK_LIMIT, DriverEngine, Served, done, of, unknown_device};
use crate::{
    Driver, Error,
    runtime::port::{Item, Outcome, Port},
    time,
};

impl<D: Driver> DriverEngine<D> {
    pub(super) async fn connect(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let Some(slot) = self.devices.get(&number) else {
            return Err(unknown_device(number));
        };
        if self.session.is_none() {
            let opening = D::open(&slot.device).instrument(slot.span.clone());
            let outcome = port.drive(item.request, item.deadline, opening).await;
            self.session = Some(self.settle(outcome, None, "opening the connection")?);
        }
        let (Some(session), Some(slot)) = (self.session.as_mut(), self.devices.get(&number)) else {
            return Err(Error::bug("the session vanished while a device connected"));
        };
        let connecting = session.connect(&slot.device).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, connecting).await;
        match self.settle(outcome, Some(number), "connecting") {
            Ok(peer) => {
                if let Some(slot) = self.devices.get_mut(&number) {
                    slot.connected = true;
                }
                Ok(Some(Event::Done(Done { peer, ..Done::default() })))
            }
            Err(error) => {
                self.close_unused(port).await;
                Err(error)
            }
        }
    }

    pub(super) async fn disconnect(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let Some(slot) = self.devices.get_mut(&number) else {
            return Err(unknown_device(number));
        };
        let was_connected = std::mem::replace(&mut slot.connected, false);
        let mut result = Ok(());
        if let Some(session) = self.session.as_mut().filter(|_| was_connected) {
            let ending = session.disconnect(&slot.device).instrument(slot.span.clone());
            let outcome = port.drive(item.request, item.deadline, ending).await;
            result = self.settle(outcome, Some(number), "disconnecting");
        }
        self.close_unused(port).await;
        result.and_then(|()| done())
    }

    /// A session that no device uses is closed: the next CONNECT begins afresh.
    pub(super) async fn close_unused(&mut self, port: &mut Port) {
        if self.any_connected() {
            return;
        }
        if let Some(session) = self.session.take() {
            let closing = session.close().instrument(self.span.clone());
            let limit = time::monotonic() + CALLBACK_LIMIT;
            if let Outcome::Panicked(panic) = port.drive(0, Some(limit), closing).await {
                tracing::error!(panic, "bug in the driver: panic while closing the session");
            }
            self.shared.tasks.end().await;
        }
    }
}
