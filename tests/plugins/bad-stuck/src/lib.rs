//! Calls that never return, on demand: `init` with `cache_dir = "stuck"`, `open` of the endpoint `stuck`, `control`
//! of LOG_LEVEL, CHECK of a device `{"stuck": true}`, `submit` of BROWSE.

use busbar_bad_common::{
    Bad,
    busbar_abi::ACCEPTED,
    busbar_contract::{describe::Open, op},
    export_bad, forever,
};

static BAD: Bad = Bad {
    init: |options| if options.pointer("/cache_dir") == Some(&"stuck".into()) { forever() } else { Ok(()) },
    open: |config| match config {
        Open::Driver { endpoint, .. } if endpoint == "stuck" => forever(),
        _ => Ok(()),
    },
    control: |op, body| if op == op::control::LOG_LEVEL { forever() } else { Ok(body.to_vec()) },
    check: |input| if input.pointer("/device/stuck") == Some(&true.into()) { forever() } else { Vec::new() },
    submit: |request| if request.op == op::request::BROWSE { forever() } else { ACCEPTED },
    ..Bad::well_behaved("bad-stuck")
};

export_bad!(BAD);
