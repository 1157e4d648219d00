//! Commit tokens (SEMANTICS 7): a batch pushed with a token is answered COMMITTED(ok) once every durable sink that took
//! records of it "has it", else COMMITTED(not ok). Only then does the driver advance its watermark.
//!
//! What "has it" means. A queue on disk: the transaction with the record is committed, or the far side confirmed it before;
//! a record that the far side refused counts when its row is on disk. A durable sink whose queue is in memory: the far side
//! confirmed it, because memory is no disk. A record that is dropped before that, or refused without being kept, makes the
//! whole batch not ok. Where no durable sink takes anything of a batch there is nothing to wait for. Tokens of one device
//! are answered in order; what is unanswered when the session or the instance ends was not committed.

use busbar_contract::{Request, request::Committed};

use crate::{
    Core,
    arena::{ChannelId, DeviceId, Id},
    input::Push,
    state::Commit,
};

/// Batches with tokens that one device may have open; a further one is refused at once (G9).
const MAX_OPEN: usize = 64;

impl Core {
    /// A batch with a token begins; 0 = it has none, or may not wait.
    pub(crate) fn begin_commit(&mut self, channel: ChannelId, push: &Push) -> u32 {
        if push.token == 0 {
            return 0;
        }
        let first = push.samples.samples.first().and_then(|sample| self.points.find(sample.point));
        let device = first.and_then(|point| self.points[point].device);
        let Some(device) = device.filter(|device| {
            self.devices[*device].channel == Some(channel) && self.devices[*device].phase.has_session()
        }) else {
            let plugin = self.channels[channel].plugin;
            self.plugins[plugin].malformed += 1;
            return 0;
        };
        if self.devices[device].commits.len() >= MAX_OPEN {
            self.tell_committed(push.instance, device, push.token, false);
            return 0;
        }
        let number = self.next_commit;
        self.next_commit = self.next_commit.checked_add(1).unwrap_or(1);
        let commit =
            Commit { device, instance: push.instance, token: push.token, outstanding: 1, failed: false };
        self.commits.insert(number, commit);
        self.devices[device].commits.push_back(number);
        number
    }

    /// Every sample of the batch was offered.
    pub(crate) fn commit_complete(&mut self, commit: u32) {
        if commit != 0 {
            self.settled_commits.push((commit, true));
        }
    }

    /// Records ended: tokens whose turn it is are answered.
    pub(crate) fn answer_commits(&mut self) {
        let mut settled = std::mem::take(&mut self.settled_commits);
        for (number, ok) in settled.drain(..) {
            let Some(commit) = self.commits.get_mut(&number) else { continue };
            commit.outstanding = commit.outstanding.saturating_sub(1);
            commit.failed |= !ok;
            let device = commit.device;
            self.answer_commits_of(device);
        }
        self.settled_commits = settled;
    }

    fn answer_commits_of(&mut self, device: DeviceId) {
        while let Some(number) = self.devices[device].commits.front().copied() {
            let open =
                self.commits.get(&number).is_some_and(|commit| commit.outstanding > 0 && !commit.failed);
            if open {
                return;
            }
            self.devices[device].commits.pop_front();
            if let Some(commit) = self.commits.remove(&number) {
                self.tell_committed(commit.instance, device, commit.token, !commit.failed);
            }
        }
    }

    fn tell_committed(&mut self, instance: u64, device: DeviceId, token: u32, ok: bool) {
        self.tell(instance, 0, Request::Committed(Committed { device: device.number(), token, ok }));
    }

    /// The session ended: unanswered means not committed.
    pub(crate) fn drop_commits_of_device(&mut self, device: DeviceId) {
        for number in std::mem::take(&mut self.devices[device].commits) {
            self.commits.remove(&number);
        }
    }

    pub(crate) fn drop_commits_of(&mut self, instance: u64) {
        self.commits.retain(|_, commit| commit.instance != instance);
        for device in self.devices.ids() {
            let commits = &self.commits;
            self.devices[device].commits.retain(|number| commits.contains_key(number));
        }
    }
}
