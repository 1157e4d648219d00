//! What is asked of a live session: reads, probes, subscriptions, browsing.

use std::sync::Arc;

use busbar_abi::Sample;
use busbar_contract::{
    Cause, Event, Kind, batch, binary,
    event::{Done, Rejected},
    request::{BlockRead, Browse, OfDevice, Subscribe},
};
use tracing::Instrument;

use super::{DriverEngine, Served, done, live, ms, of};
use crate::{
    Driver, Error, Group, Pages,
    reading::unanswered,
    runtime::port::{Item, Port},
    time,
};

impl<D: Driver> DriverEngine<D> {
    pub(super) async fn read(&mut self, port: &mut Port, item: &Item, body: &binary::Read) -> Served {
        let Some(group) = self.groups.get_mut(&body.group) else {
            let text = format!("group {}: expected a bound group, found none; BIND comes first", body.group);
            return Err(Error::configuration(text));
        };
        let number = group.device;
        let (session, slot) = live(&mut self.session, &self.devices, number)?;
        self.readings.begin(&group.template, group.points.len(), body.cause);
        let mut view =
            Group { device: &slot.device, plan: &mut group.plan, cause: body.cause, points: &group.points };
        let reading = session.read(&mut view, &mut self.readings).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, reading).await;
        let expected = group.template.len();
        self.settle(outcome, Some(number), "reading")?;
        self.complete_read(
            port,
            item,
            number,
            expected,
            if body.cause == Cause::Resync { batch::RESYNC } else { 0 },
        )
    }

    pub(super) fn complete_read(
        &mut self,
        port: &mut Port,
        item: &Item,
        device: u32,
        expected: usize,
        flags: u32,
    ) -> Served {
        if self.readings.samples.len() != expected {
            let found = self.readings.samples.len();
            self.drop_session();
            return Err(Error::bug(format!("the driver's answer: expected {expected} slots, found {found}")));
        }
        self.readings.finish(time::now());
        if let Some(slot) = self.devices.get_mut(&device) {
            slot.tell_refusals(&mut self.readings);
        }
        if item.request != 0 {
            port.complete_read(item.request, flags, &self.readings);
        }
        Ok(None)
    }

    pub(super) async fn block_read(&mut self, port: &mut Port, item: &Item, body: &BlockRead) -> Served {
        let (session, slot) = live(&mut self.session, &self.devices, body.device)?;
        let points = slot.resolve(&body.points)?;
        let template: Vec<Sample> = points.iter().map(|point| unanswered(point.number)).collect();
        self.readings.begin(&template, points.len(), Cause::Poll);
        let reading =
            session.block_read(&slot.device, &points, &mut self.readings).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, reading).await;
        self.settle(outcome, Some(body.device), "reading a block")?;
        let missing = self.readings.samples.iter().filter(|sample| sample.kind == Kind::None as u8).count();
        if missing > 0 {
            let text =
                format!("a block is all or nothing: {missing} of {} points gave no value", points.len());
            return Err(Error::refused(text));
        }
        self.complete_read(port, item, body.device, template.len(), batch::BLOCK)
    }

    pub(super) async fn probe(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let (session, slot) = live(&mut self.session, &self.devices, number)?;
        let outcome = port
            .drive(item.request, item.deadline, session.probe(&slot.device).instrument(slot.span.clone()))
            .await;
        self.settle(outcome, Some(number), "the liveness probe")?;
        done()
    }

    pub(super) async fn subscribe(&mut self, port: &mut Port, item: &Item, body: &Subscribe) -> Served {
        let (session, slot) = live(&mut self.session, &self.devices, body.device)?;
        let points = slot.resolve(&body.points)?;
        let integrity = (body.integrity_ms > 0).then(|| ms(body.integrity_ms));
        let asking = session.subscribe(&slot.device, &points, integrity).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, asking).await;
        let answer = self.settle(outcome, Some(body.device), "subscribing")?;
        let rejected =
            answer.rejected.into_iter().map(|(point, reason)| Rejected { point, reason }).collect();
        let integrity_ms =
            answer.integrity.map_or(0, |period| u64::try_from(period.as_millis()).unwrap_or(0));
        let subscribed = answer.subscribed;
        Ok(Some(Event::Done(Done { subscribed, rejected, integrity_ms, ..Done::default() })))
    }

    pub(super) async fn unsubscribe(&mut self, port: &mut Port, item: &Item, body: &OfDevice) -> Served {
        let number = of(body)?;
        let (session, slot) = live(&mut self.session, &self.devices, number)?;
        let ending = session.unsubscribe(&slot.device).instrument(slot.span.clone());
        let outcome = port.drive(item.request, item.deadline, ending).await;
        self.settle(outcome, Some(number), "ending the subscription")?;
        done()
    }

    pub(super) async fn browse(&mut self, port: &mut Port, item: &Item, body: &Browse) -> Served {
        let (session, slot) = live(&mut self.session, &self.devices, body.device)?;
        let mut pages =
            Pages { shared: Arc::clone(&port.shared), request: item.request, entries: Vec::new() };
        let browsing = async {
            session.browse(&slot.device, &body.arguments, &mut pages).await?;
            pages.flush().await
        };
        let outcome = port.drive(item.request, item.deadline, browsing.instrument(slot.span.clone())).await;
        self.settle(outcome, Some(body.device), "browsing")?;
        done()
    }
}
