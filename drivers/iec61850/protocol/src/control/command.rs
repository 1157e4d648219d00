//! One command: select where the control model asks for it, operate or cancel, wait for the termination.
//!
//! Nothing is ever repeated. Once `Oper` has left, a missing answer means "unknown", never "refused": the device
//! may have moved. A reason (`LastApplError`) comes before the refusal it explains and is kept until then. An end of
//! another command, told by object and number, is not taken.

use iec61850_rs::common::ControlModel;
use iec61850_rs::proto::data::Value;

use super::{ApplError, Conditions, Reason, Setting, ctl_val};
use crate::data;
use crate::error::Error;
use crate::kind::Kind;
use crate::model::Model;
use crate::name::{Address, Fc, Name};
use crate::request::{Answer, Request};
use crate::unsolicited::Unsolicited;

/// What the model says about a controllable object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The object (`LD/CSWI1$CO$Pos`).
    pub object: Name,
    /// Its `ctlModel`, to be read; `None` where the device has none.
    pub model_name: Option<Name>,
    /// Type of the object under CO.
    kind: Kind,
}

impl Control {
    /// Finds the control of a point: the address may end at the data object or at its state.
    ///
    /// # Errors
    /// One sentence: what was expected.
    pub fn resolve(model: &Model, address: &Address) -> Result<Self, String> {
        for depth in (1..=address.path.len()).rev() {
            let object = address.name(Fc::CO, depth);
            let Some(kind) = model.kind(&object) else { continue };
            if kind.member("Oper").is_none() {
                continue;
            }
            let model_name = address.name(Fc::CF, depth).child("ctlModel");
            let model_name = model.kind(&model_name).is_some().then_some(model_name);
            return Ok(Self { object, model_name, kind: kind.clone() });
        }
        Err(format!(
            "{address}: expected a controllable object (with Oper under CO), the device has none there"
        ))
    }

    /// Reads a `ctlModel`. A device without one operates directly, as the first edition allowed.
    ///
    /// # Errors
    /// What was found.
    pub fn control_model(value: Option<&Value>) -> Result<ControlModel, String> {
        let Some(value) = value else { return Ok(ControlModel::DirectNormal) };
        data::integer(value)
            .and_then(ControlModel::from_code)
            .ok_or_else(|| format!("ctlModel: expected 0 to 4, got {value:?}"))
    }

    fn structure(&self, member: &str, setting: Setting, conditions: &Conditions) -> Result<Value, String> {
        let missing = || format!("{}: the device has no {member}", self.object);
        let (_, kind) = self.kind.member(member).ok_or_else(missing)?;
        let (_, value_kind) = kind.member("ctlVal").ok_or_else(missing)?;
        conditions.structure(kind, &ctl_val(value_kind, setting)?)
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Select only.
    Select,
    /// Operate an object that this client has selected, or that needs no selection.
    Operate,
    /// Select if the control model asks for it, then operate.
    SelectAndOperate,
    /// Cancel a selection or a running command.
    Cancel,
}

/// How far a command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The object is selected.
    Selected,
    /// The device has accepted the command; its end is still to come (enhanced security).
    Accepted,
    /// It is done. With normal security: the device has accepted it and tells no more.
    Finished,
    /// The device, or its model, says no. Nothing was executed.
    Refused(Reason, String),
    /// It was accepted and has failed.
    Failed(Reason, String),
    /// It left for the device and nobody knows what became of it.
    Unknown(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Select,
    Operate,
    Cancel,
    Termination,
    Done,
}

/// One command under way. One request at a time.
#[derive(Debug)]
pub struct Command {
    control: Control,
    model: ControlModel,
    setting: Setting,
    conditions: Conditions,
    action: Action,
    step: Step,
    /// The step whose request was handed out, so that no request is handed out twice.
    handed_out: Option<Step>,
    reason: Option<ApplError>,
}

impl Command {
    /// A command, checked as far as the model can tell.
    ///
    /// # Errors
    /// The refusal, before anything has left.
    pub fn new(
        control: Control,
        model: ControlModel,
        setting: Setting,
        conditions: Conditions,
        action: Action,
    ) -> Result<Self, (Reason, String)> {
        let unsupported = |text: &str| (Reason::Unsupported, format!("{}: {text}", control.object));
        if model == ControlModel::StatusOnly {
            return Err(unsupported("its ctlModel is status-only"));
        }
        let step = match action {
            Action::Select if !model.needs_select() => {
                return Err(unsupported("its ctlModel is direct, it cannot be selected"));
            }
            Action::Select => Step::Select,
            Action::SelectAndOperate if model.needs_select() => Step::Select,
            Action::Operate | Action::SelectAndOperate => Step::Operate,
            Action::Cancel => Step::Cancel,
        };
        let command =
            Self { control, model, setting, conditions, action, step, handed_out: None, reason: None };
        // Everything that will be sent can be made, or nothing is sent.
        let mut steps = vec![step];
        if action == Action::SelectAndOperate {
            steps.push(Step::Operate);
        }
        for step in steps {
            command.make(step).map_err(|text| (Reason::Unsupported, text))?;
        }
        Ok(command)
    }

    /// The request to make now, handed out once; `None` while something is waited for, and at the end.
    pub fn next_request(&mut self) -> Option<Request> {
        if self.handed_out.replace(self.step) == Some(self.step) {
            return None;
        }
        self.make(self.step).ok().flatten()
    }

    /// True once a command that may move something has been handed out and has no end yet.
    #[must_use]
    pub fn may_have_moved(&self) -> bool {
        match self.step {
            Step::Operate => self.handed_out == Some(Step::Operate),
            Step::Termination => true,
            Step::Select | Step::Cancel | Step::Done => false,
        }
    }

    fn make(&self, step: Step) -> Result<Option<Request>, String> {
        let member = match step {
            Step::Select if self.model.select_carries_value() => "SBOw",
            Step::Select => return Ok(Some(Request::Read(vec![self.control.object.child("SBO")]))),
            Step::Operate => "Oper",
            Step::Cancel => "Cancel",
            Step::Termination | Step::Done => return Ok(None),
        };
        let value = self.control.structure(member, self.setting, &self.conditions)?;
        Ok(Some(Request::Write(vec![(self.control.object.child(member), value)])))
    }

    /// Takes the answer to the request.
    pub fn answer(&mut self, outcome: Result<Answer, Error>) -> Option<Progress> {
        let step = self.step;
        if step == Step::Done {
            // Its end overtook the answer.
            return None;
        }
        match judge(step, self.model, &outcome) {
            Verdict::Yes => self.accepted(step),
            Verdict::No(text) => {
                self.step = Step::Done;
                let (reason, text) = self.explain(text);
                Some(Progress::Refused(reason, text))
            }
            Verdict::Nobody(text) => {
                self.step = Step::Done;
                Some(match step {
                    // Nothing moves by a selection.
                    Step::Select => Progress::Refused(Reason::Timeout, text),
                    _ => Progress::Unknown(text),
                })
            }
        }
    }

    fn accepted(&mut self, step: Step) -> Option<Progress> {
        self.reason = None;
        match step {
            Step::Select if self.action == Action::SelectAndOperate => {
                self.step = Step::Operate;
                Some(Progress::Selected)
            }
            Step::Select => {
                self.step = Step::Done;
                Some(Progress::Selected)
            }
            Step::Operate if self.model.enhanced_security() => {
                self.step = Step::Termination;
                Some(Progress::Accepted)
            }
            Step::Operate | Step::Cancel => {
                self.step = Step::Done;
                Some(Progress::Finished)
            }
            Step::Termination | Step::Done => None,
        }
    }

    /// Takes what came unasked. `None` where it is not about this command, or says nothing new.
    pub fn unsolicited(&mut self, came: &Unsolicited) -> Option<Progress> {
        match came {
            Unsolicited::Reason(error) if error.is_about(&self.control.object, self.conditions.ctl_num) => {
                self.reason = Some(error.clone());
                None
            }
            Unsolicited::Terminated { object, request, error }
                if self.is_mine(object, request.as_ref(), error.as_ref()) =>
            {
                // It may overtake the answer to Oper.
                if !matches!(self.step, Step::Operate | Step::Termination) {
                    return None;
                }
                self.step = Step::Done;
                Some(match error {
                    None => Progress::Finished,
                    Some(error) => Progress::Failed(error.cause.reason(), error.cause.to_string()),
                })
            }
            _ => None,
        }
    }

    fn is_mine(&self, object: &Name, request: Option<&Value>, error: Option<&ApplError>) -> bool {
        if *object != self.control.object.child("Oper") {
            return false;
        }
        let echoed = || {
            let (place, _) = self.control.kind.member("Oper")?.1.member("ctlNum")?;
            data::integer(request?.member(place)?)
        };
        let number = error.map(|error| i64::from(error.ctl_num)).or_else(echoed);
        // A device that does not say the number ends the one command there is.
        number.is_none_or(|number| number == i64::from(self.conditions.ctl_num))
    }

    /// The time of the command is up.
    pub fn expired(&mut self) -> Progress {
        let text = "no end of the command in time".to_owned();
        let moved =
            self.may_have_moved() || (self.step == Step::Cancel && self.handed_out == Some(Step::Cancel));
        self.step = Step::Done;
        if moved { Progress::Unknown(text) } else { Progress::Refused(Reason::Timeout, text) }
    }

    fn explain(&self, text: String) -> (Reason, String) {
        match &self.reason {
            Some(error) => (error.cause.reason(), format!("{}; {text}", error.cause)),
            None => (Reason::DeviceRefused, text),
        }
    }
}

enum Verdict {
    Yes,
    No(String),
    Nobody(String),
}

fn judge(step: Step, model: ControlModel, outcome: &Result<Answer, Error>) -> Verdict {
    match outcome {
        Ok(Answer::Written(results)) => match results.first() {
            Some(Ok(())) => Verdict::Yes,
            Some(Err(error)) => Verdict::No(error.to_string()),
            None => Verdict::Nobody("an empty answer".to_owned()),
        },
        // 8-1 20.3: the reference of the object for yes, an empty string for no.
        Ok(Answer::Values(values)) if step == Step::Select && !model.select_carries_value() => {
            match values.first() {
                Some(Ok(value)) if data::text(value).is_some_and(|text| !text.is_empty()) => Verdict::Yes,
                Some(Ok(_)) => Verdict::No("the device did not select the object".to_owned()),
                Some(Err(error)) => Verdict::No(error.to_string()),
                None => Verdict::Nobody("an empty answer".to_owned()),
            }
        }
        Ok(_) => Verdict::Nobody("an answer to another service".to_owned()),
        Err(error @ (Error::Refused { .. } | Error::NotSent(_))) => Verdict::No(error.to_string()),
        Err(error) => Verdict::Nobody(error.to_string()),
    }
}
