//! Its `init` never returns.

use busbar_bad_common::{Bad, export_bad, forever};

static BAD: Bad = Bad { init: |_| forever(), ..Bad::well_behaved("bad-init-stuck") };

export_bad!(BAD);
