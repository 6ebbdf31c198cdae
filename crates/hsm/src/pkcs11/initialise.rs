//! `C_Initialize`, with the initialisation string of modules that want one. The only `unsafe` of this crate.
//!
//! NSS softokn takes its database and its token's name from the reserved pointer of `CK_C_INITIALIZE_ARGS` and from nowhere
//! else (releases after the one in Debian 12 read the environment as well), so without that pointer it cannot be used at all.
//! Nothing else here may grow `unsafe`: the crate denies it, and this file's one block is the exception.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};

/// Initialises the module. The text is read during the call alone: modules copy what they keep of it.
pub(super) fn initialise(module: &Pkcs11, text: Option<&CStr>) -> cryptoki::error::Result<()> {
    let flags = CInitializeFlags::OS_LOCKING_OK;
    match text {
        None => module.initialize(CInitializeArgs::new(flags)),
        Some(text) => module.initialize(with_text(flags, text)),
    }
}

/// Arguments that point to `text`; used up in the same expression, so that the pointer cannot outlive what it points to.
#[expect(
    unsafe_code,
    reason = "cryptoki takes the reserved argument as a raw pointer"
)]
fn with_text(flags: CInitializeFlags, text: &CStr) -> CInitializeArgs {
    let start: NonNull<c_void> = NonNull::from(text.to_bytes_with_nul()).cast();
    // SAFETY: the pointer is to a C string that the only caller borrows for the whole of C_Initialize, and a C string is what
    // modules that look at this argument define it to be; others must ignore it. Nobody writes through it.
    unsafe { CInitializeArgs::new_with_reserved(flags, start) }
}
