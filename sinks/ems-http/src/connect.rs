//! Connecting: the endpoints in order, each with the batch that got no answer, or, where there is none, only to see whether
//! somebody is there.

use std::sync::Arc;
use std::time::Duration;

use busbar_driver_api::{Error, Link, Result, time};
use busbar_ems_http::Lane;
use busbar_sink_kit::settings::Prefer;

use crate::exchange::{Batch, exchange};
use crate::setup::Setup;
use crate::sink::Ems;
use crate::verdict::{self, Down, Next, when};

/// For all endpoints of a list together: below the host's own limit for a connect, so that the reason is ours.
const OPEN_LIMIT: Duration = Duration::from_secs(25);
/// At least this long for each.
pub(crate) const MIN_LIMIT: Duration = Duration::from_secs(3);
/// An attempt that is due within this time is waited for; otherwise the host asks again.
const OPEN_WAIT: Duration = Duration::from_secs(3);

/// Too early for another attempt? Then the host is told when, unless it is soon. A token that changed is tried at once.
pub(crate) async fn wait_turn(link: &Link<Ems>, setup: &Setup) -> Result<()> {
    let (not_before, refused, reason) = {
        let memory = link.settings.memory.lock();
        (memory.not_before, memory.refused.clone(), memory.reason.clone())
    };
    let left = not_before.saturating_sub(time::monotonic());
    if let Some(refused) = refused
        && let Ok(token) = setup.token.read().await
        && token.unwrap_or_default() != refused
    {
        return Ok(());
    }
    if left > OPEN_WAIT {
        return Err(Error::session(format!("{reason}; next attempt {}", when(left))));
    }
    time::sleep(left).await;
    Ok(())
}

impl Ems {
    /// Tries the endpoints in order: with the batch that got no answer, or only whether somebody is there.
    pub(crate) async fn connect(&mut self, link: &Link<Self>, started: Duration) -> Result<()> {
        let count = self.setup.endpoints.len();
        let first = match link.settings.prefer {
            Prefer::First => 0,
            Prefer::LastGood => link.settings.memory.lock().last_good,
        };
        let mut downs = Vec::new();
        for turn in 0..count {
            let at = (first + turn) % count.max(1);
            let spent = time::monotonic().saturating_sub(started);
            let share = u32::try_from(count - turn).unwrap_or(u32::MAX);
            let limit = (OPEN_LIMIT.saturating_sub(spent) / share).max(MIN_LIMIT).min(self.setup.timeout);
            match self.attempt(link, at, limit).await? {
                None => {
                    self.at = at;
                    self.tell(link).await?;
                    return Ok(());
                }
                Some(down) => downs.push(down),
            }
        }
        let text = downs.iter().map(|down| down.text.as_str()).collect::<Vec<_>>().join("; ");
        if !self.lane.is_begun() {
            // Only a look: the host looks again at its own pace.
            return Err(Error::session(text));
        }
        let memory = &link.settings.memory;
        memory.lock().patient =
            downs.iter().any(|down| down.timed_out.is_some_and(|limit| limit < self.setup.timeout));
        let down = Down { text, token: downs.iter().find_map(|down| down.token.clone()), timed_out: None };
        let (text, alarm) = verdict::failed(&down, &self.setup, memory, false);
        memory.lock().held = Some(std::mem::replace(&mut self.lane, Lane::new(self.setup.limits)));
        self.alarm = alarm;
        self.tell(link).await?;
        Err(Error::session(text))
    }

    /// One attempt at one endpoint; `None`: somebody is there.
    async fn attempt(&mut self, link: &Link<Self>, at: usize, limit: Duration) -> Result<Option<Down>> {
        let setup = Arc::clone(&self.setup);
        let Some(to) = setup.endpoints.get(at) else { return Ok(None) };
        let memory = &link.settings.memory;
        let patient = memory.lock().patient;
        let batch =
            if self.lane.is_begun() && !patient { Batch::begin(&mut self.lane, &setup) } else { None };
        let Some(batch) = batch else {
            let reached = time::timeout(limit, setup.client.reach(to)).await;
            let down = |text| Some(Down { text, token: None, timed_out: None });
            return match reached {
                Ok(Ok(())) => {
                    let begun = memory.lock().begun;
                    self.forget_begun(begun);
                    Ok(None)
                }
                Ok(Err(busbar_ems_http::Error::Configuration(text))) => Err(Error::configuration(text)),
                Ok(Err(error)) => Ok(down(error.to_string())),
                Err(elapsed) => Ok(down(format!("cannot reach {to}: {elapsed}"))),
            };
        };
        let outcome = exchange(&setup, to, &batch, limit).await;
        let (next, alarm) = verdict::take(outcome, to, &setup, &mut self.lane, memory, &mut self.acks);
        self.alarm = alarm.or(self.alarm.take());
        match next {
            Next::Down(down) => return Ok(Some(down)),
            Next::Wait(pause) => self.wait_until = Some(time::monotonic() + pause),
            Next::GoOn => {}
        }
        self.lane.reconnected();
        let begun = memory.lock().begun;
        self.forget_begun(begun);
        Ok(None)
    }

    /// The host delivers what is not settled again; a batch without decision is made of the same records then.
    fn forget_begun(&mut self, begun: Option<u64>) {
        self.lane.forget();
        if let Some(end) = begun {
            self.lane.cut_at(end);
        }
    }
}
