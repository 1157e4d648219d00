//! A running interrogation: as many ASDUs as it needs, one at a time, so that events go out in between.
//!
//! Each object is read from the image when its ASDU is packed, never before: an interrogated value is never older than
//! an event that was already sent (the image is updated before the event is queued).

use super::image::{Image, Selection, Shown};
use crate::asdu::{Cause, Header, Packer, Reason, mirror};

/// One interrogation of one common address on one connection.
#[derive(Debug)]
pub(super) struct Job {
    /// The request with this common address, for confirmation and termination.
    request: Vec<u8>,
    pub(super) common_address: u16,
    pub(super) selection: Selection,
    cursor: usize,
    cause: Cause,
    sequences: bool,
}

/// What a job gives.
pub(super) enum Part {
    /// Data, and there may be more.
    Data(Vec<u8>),
    /// The termination.
    Last(Vec<u8>),
}

impl Job {
    pub(super) fn new(request: Vec<u8>, header: &Header, selection: Selection, sequences: bool) -> Self {
        let reason = match selection {
            Selection::Station => Reason::INTERROGATED,
            Selection::Group(group) => Reason(Reason::INTERROGATED.0 + group),
            Selection::Counters => Reason::COUNTERS,
            Selection::CounterGroup(group) => Reason(Reason::COUNTERS.0 + group),
        };
        let cause = Cause { reason, negative: false, ..header.cause };
        Self { request, common_address: header.common_address, selection, cursor: 0, cause, sequences }
    }

    pub(super) fn next(&mut self, image: &Image) -> Part {
        let Some((first, after)) = self.peek(image, self.cursor) else {
            return Part::Last(mirror(&self.request, Reason::ACTIVATION_TERM, false));
        };
        let sequence = self.sequences
            && self
                .peek(image, after)
                .is_some_and(|(next, _)| alike(&first, &next) && next.ioa == first.ioa + 1);
        let cause = Cause { test: self.cause.test || first.test, ..self.cause };
        let mut packer = Packer::new(first.type_id, cause, self.common_address, sequence);
        while let Some((shown, after)) = self.peek(image, self.cursor) {
            // The image holds elements of the point's type only, so an error cannot come; it would skip the object.
            let packed = alike(&first, &shown).then(|| packer.push_untimed(shown.ioa, shown.element));
            match packed {
                Some(Ok(true)) | Some(Err(_)) => self.cursor = after,
                _ => break,
            }
        }
        Part::Data(packer.finish())
    }

    fn peek(&self, image: &Image, mut cursor: usize) -> Option<(Shown, usize)> {
        let shown = image.next(&mut cursor, self.common_address, self.selection)?;
        Some((shown, cursor))
    }
}

fn alike(a: &Shown, b: &Shown) -> bool {
    (a.type_id, a.test) == (b.type_id, b.test)
}
