//! Panics while reading: READ on its own thread, where it becomes FAILED; PROBE inside `submit`, unguarded, which
//! ends the process that called it.

use busbar_bad_common::{Bad, busbar_abi::ACCEPTED, busbar_contract::op, export_bad};

static BAD: Bad = Bad {
    #[allow(clippy::panic, reason = "this is what the plugin is for")]
    submit: |request| if request.op == op::request::PROBE { panic!("bug in submit") } else { ACCEPTED },
    #[allow(clippy::panic, reason = "this is what the plugin is for")]
    handle: |host, request| match request.op {
        op::request::READ => panic!("bug in poll"),
        _ => host.done(request.req),
    },
    ..Bad::well_behaved("bad-poll-panic")
};

export_bad!(BAD);
