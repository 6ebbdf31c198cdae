//! The function table: one forwarding function per entry, and the few that look into their arguments.

use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use crate::faults::{before, faults, module};

/// Entries of a Cryptoki 2.40 table.
const ENTRIES: usize = 68;
const CKR_GENERAL_ERROR: usize = 0x05;
const CKR_DEVICE_REMOVED: usize = 0x32;
const CKA_SENSITIVE: usize = 0x103;
/// Where CK_TOKEN_INFO has its time: after four texts, flags, ten counts and two versions.
const TOKEN_TIME_AT: usize = 32 + 32 + 16 + 16 + 8 + 10 * 8 + 2 * 2;
/// YYYYMMDDhhmmss00.
const A_TIME: &[u8; 16] = b"2024010100000000";
/// What `renumber` does to a slot's number.
const RENUMBERED: usize = 0x5a5a_0000;

/// CK_FUNCTION_LIST: a version, padded to a word, then the functions.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    version: [u8; 2],
    functions: [usize; ENTRIES],
}

/// CK_ATTRIBUTE.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attribute {
    kind: usize,
    value: *const c_void,
    length: usize,
}

/// The real module's table; loaded once, never unloaded.
fn real() -> Option<&'static Table> {
    static REAL: OnceLock<Option<Table>> = OnceLock::new();
    REAL.get_or_init(load).as_ref()
}

fn load() -> Option<Table> {
    let path = CString::new(module()?.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path is a C string; loading a module runs its constructors, which is what a PKCS#11 caller asks for.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    // SAFETY: the handle is open; the name is a C string.
    let entry = unsafe { libc::dlsym(library, c"C_GetFunctionList".as_ptr()) };
    if entry.is_null() {
        return None;
    }
    let mut table: *const Table = std::ptr::null();
    // SAFETY: C_GetFunctionList has this type in every Cryptoki version.
    let get: unsafe extern "C" fn(*mut *const Table) -> usize =
        unsafe { std::mem::transmute(entry) };
    // SAFETY: the argument is a place for one pointer.
    let rv = unsafe { get(&raw mut table) };
    // SAFETY: on CKR_OK the pointer is to the module's own table, valid for the process.
    (rv == 0 && !table.is_null()).then(|| unsafe { *table })
}

fn logged(name: &str, rv: usize) -> usize {
    faults().log(name, &format!("{rv:#x}"));
    rv
}

/// What happens to every call before it is forwarded; `slot` says that its first argument is a slot's number.
fn gate(name: &'static str, takes_slot: bool, first: usize) -> Result<usize, usize> {
    if let Some(rv) = before(name) {
        return Err(rv);
    }
    let (lost, renumber, dropping, slots) = {
        let mut faults = faults();
        let dropping = faults.take_drop();
        (
            faults.script.lose_token,
            faults.script.renumber,
            dropping,
            faults.slots.clone(),
        )
    };
    if dropping && let Some(real) = real() {
        // SAFETY: entry 14 is C_CloseAllSessions(slot).
        let close: unsafe extern "C" fn(usize) -> usize =
            unsafe { std::mem::transmute(real.functions[14]) };
        for slot in slots {
            // SAFETY: the module was initialised, since sessions were opened on this slot.
            unsafe { close(slot) };
        }
    }
    if lost
        && !matches!(
            name,
            "C_Initialize" | "C_Finalize" | "C_GetInfo" | "C_GetSlotList"
        )
    {
        return Err(CKR_DEVICE_REMOVED);
    }
    let first = if renumber && takes_slot {
        first ^ RENUMBERED
    } else {
        first
    };
    if name == "C_OpenSession" {
        faults().slots.insert(first);
    }
    Ok(first)
}

macro_rules! forward {
    ($($index:literal $name:ident ($first:ident $(, $rest:ident)*) $slot:literal;)*) => {
        $(
            unsafe extern "C" fn $name($first: usize $(, $rest: usize)*) -> usize {
                let name = stringify!($name);
                let $first = match gate(name, $slot, $first) {
                    Ok(first) => first,
                    Err(rv) => return logged(name, rv),
                };
                let Some(real) = real() else { return CKR_GENERAL_ERROR };
                // SAFETY: the entry is the function of this name, whose arguments are as many machine words.
                let function: unsafe extern "C" fn(usize $(, forward!(@word $rest))*) -> usize =
                    unsafe { std::mem::transmute(real.functions[$index]) };
                // SAFETY: the caller's arguments, unchanged.
                logged(name, unsafe { function($first $(, $rest)*) })
            }
        )*
        fn fill(functions: &mut [usize; ENTRIES]) {
            $( functions[$index] = $name as *const () as usize; )*
        }
    };
    (@word $rest:ident) => { usize };
}

forward! {
    0 C_Initialize(a) false;
    1 C_Finalize(a) false;
    2 C_GetInfo(a) false;
    5 C_GetSlotInfo(a, b) true;
    7 C_GetMechanismList(a, b, c) true;
    8 C_GetMechanismInfo(a, b, c) true;
    9 C_InitToken(a, b, c, d) true;
    10 C_InitPIN(a, b, c) false;
    11 C_SetPIN(a, b, c, d, e) false;
    12 C_OpenSession(a, b, c, d, e) true;
    13 C_CloseSession(a) false;
    14 C_CloseAllSessions(a) true;
    15 C_GetSessionInfo(a, b) false;
    16 C_GetOperationState(a, b, c) false;
    17 C_SetOperationState(a, b, c, d, e) false;
    18 C_Login(a, b, c, d) false;
    19 C_Logout(a) false;
    20 C_CreateObject(a, b, c, d) false;
    21 C_CopyObject(a, b, c, d, e) false;
    22 C_DestroyObject(a, b) false;
    23 C_GetObjectSize(a, b, c) false;
    25 C_SetAttributeValue(a, b, c, d) false;
    26 C_FindObjectsInit(a, b, c) false;
    27 C_FindObjects(a, b, c, d) false;
    28 C_FindObjectsFinal(a) false;
    29 C_EncryptInit(a, b, c) false;
    30 C_Encrypt(a, b, c, d, e) false;
    31 C_EncryptUpdate(a, b, c, d, e) false;
    32 C_EncryptFinal(a, b, c) false;
    33 C_DecryptInit(a, b, c) false;
    34 C_Decrypt(a, b, c, d, e) false;
    35 C_DecryptUpdate(a, b, c, d, e) false;
    36 C_DecryptFinal(a, b, c) false;
    37 C_DigestInit(a, b) false;
    38 C_Digest(a, b, c, d, e) false;
    39 C_DigestUpdate(a, b, c) false;
    40 C_DigestKey(a, b) false;
    41 C_DigestFinal(a, b, c) false;
    42 C_SignInit(a, b, c) false;
    43 C_Sign(a, b, c, d, e) false;
    44 C_SignUpdate(a, b, c) false;
    45 C_SignFinal(a, b, c) false;
    46 C_SignRecoverInit(a, b, c) false;
    47 C_SignRecover(a, b, c, d, e) false;
    48 C_VerifyInit(a, b, c) false;
    49 C_Verify(a, b, c, d, e) false;
    50 C_VerifyUpdate(a, b, c) false;
    51 C_VerifyFinal(a, b, c) false;
    52 C_VerifyRecoverInit(a, b, c) false;
    53 C_VerifyRecover(a, b, c, d, e) false;
    54 C_DigestEncryptUpdate(a, b, c, d, e) false;
    55 C_DecryptDigestUpdate(a, b, c, d, e) false;
    56 C_SignEncryptUpdate(a, b, c, d, e) false;
    57 C_DecryptVerifyUpdate(a, b, c, d, e) false;
    58 C_GenerateKey(a, b, c, d, e) false;
    59 C_GenerateKeyPair(a, b, c, d, e, f, g, h) false;
    60 C_WrapKey(a, b, c, d, e, f) false;
    63 C_SeedRandom(a, b, c) false;
    64 C_GenerateRandom(a, b, c) false;
    65 C_GetFunctionStatus(a) false;
    66 C_CancelFunction(a) false;
    67 C_WaitForSlotEvent(a, b, c) false;
}

/// Slots: none while the token is lost, others while they are renumbered.
unsafe extern "C" fn C_GetSlotList(present: u8, list: *mut usize, count: *mut usize) -> usize {
    let name = "C_GetSlotList";
    if let Err(rv) = gate(name, false, 0) {
        return logged(name, rv);
    }
    let Some(real) = real() else {
        return CKR_GENERAL_ERROR;
    };
    let (lost, renumber) = {
        let faults = faults();
        (faults.script.lose_token, faults.script.renumber)
    };
    if lost && present != 0 {
        // SAFETY: the caller must give a place for the count.
        unsafe { *count = 0 };
        return logged(name, 0);
    }
    // SAFETY: entry 4 is C_GetSlotList.
    let function: unsafe extern "C" fn(u8, *mut usize, *mut usize) -> usize =
        unsafe { std::mem::transmute(real.functions[4]) };
    // SAFETY: the caller's arguments, unchanged.
    let rv = unsafe { function(present, list, count) };
    if rv == 0 && renumber && !list.is_null() {
        // SAFETY: on CKR_OK with a list, the module wrote `count` numbers into it.
        for slot in unsafe { std::slice::from_raw_parts_mut(list, *count) } {
            *slot ^= RENUMBERED;
        }
    }
    logged(name, rv)
}

/// A token's description, with another time if the script says so.
unsafe extern "C" fn C_GetTokenInfo(slot: usize, info: *mut u8) -> usize {
    let name = "C_GetTokenInfo";
    let slot = match gate(name, true, slot) {
        Ok(slot) => slot,
        Err(rv) => return logged(name, rv),
    };
    let Some(real) = real() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: entry 6 is C_GetTokenInfo.
    let function: unsafe extern "C" fn(usize, *mut u8) -> usize =
        unsafe { std::mem::transmute(real.functions[6]) };
    // SAFETY: the caller's arguments.
    let rv = unsafe { function(slot, info) };
    if rv == 0 && faults().script.set_clock {
        // SAFETY: on CKR_OK the module filled a whole CK_TOKEN_INFO in, whose time lies there.
        unsafe {
            std::ptr::copy_nonoverlapping(A_TIME.as_ptr(), info.add(TOKEN_TIME_AT), A_TIME.len())
        };
    }
    logged(name, rv)
}

/// Attributes, with a lie about CKA_SENSITIVE if the script says so.
unsafe extern "C" fn C_GetAttributeValue(
    session: usize,
    object: usize,
    template: *mut Attribute,
    count: usize,
) -> usize {
    let name = "C_GetAttributeValue";
    if let Err(rv) = gate(name, false, session) {
        return logged(name, rv);
    }
    let Some(real) = real() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: entry 24 is C_GetAttributeValue.
    let function: unsafe extern "C" fn(usize, usize, *mut Attribute, usize) -> usize =
        unsafe { std::mem::transmute(real.functions[24]) };
    // SAFETY: the caller's arguments, unchanged.
    let rv = unsafe { function(session, object, template, count) };
    if faults().script.lie_sensitive && !template.is_null() {
        // SAFETY: the caller gave `count` attributes.
        for attribute in unsafe { std::slice::from_raw_parts(template, count) } {
            if attribute.kind == CKA_SENSITIVE
                && attribute.length == 1
                && !attribute.value.is_null()
            {
                // SAFETY: the module just wrote a CK_BBOOL there.
                unsafe { *attribute.value.cast_mut().cast::<u8>() = 0 };
            }
        }
    }
    logged(name, rv)
}

/// The caller's template, with CKA_SENSITIVE turned off if the script says so.
///
/// # Safety
/// `template` points to `count` attributes, or is null.
unsafe fn rewritten(template: *const Attribute, count: usize) -> Vec<Attribute> {
    static FALSE: u8 = 0;
    if template.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller of this function vouches for it.
    let mut copy = unsafe { std::slice::from_raw_parts(template, count) }.to_vec();
    if faults().script.ignore_sensitive {
        for attribute in copy
            .iter_mut()
            .filter(|attribute| attribute.kind == CKA_SENSITIVE)
        {
            attribute.value = (&raw const FALSE).cast();
        }
    }
    copy
}

/// C_UnwrapKey with its template rewritten.
unsafe extern "C" fn C_UnwrapKey(
    session: usize,
    mechanism: usize,
    key: usize,
    wrapped: usize,
    length: usize,
    template: *const Attribute,
    count: usize,
    out: usize,
) -> usize {
    let name = "C_UnwrapKey";
    if let Err(rv) = gate(name, false, session) {
        return logged(name, rv);
    }
    let Some(real) = real() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller gave `count` attributes.
    let template = unsafe { rewritten(template, count) };
    // SAFETY: entry 61 is C_UnwrapKey.
    let function: unsafe extern "C" fn(
        usize,
        usize,
        usize,
        usize,
        usize,
        *const Attribute,
        usize,
        usize,
    ) -> usize = unsafe { std::mem::transmute(real.functions[61]) };
    // SAFETY: the caller's arguments, with a template of the same length.
    logged(name, unsafe {
        function(
            session,
            mechanism,
            key,
            wrapped,
            length,
            template.as_ptr(),
            template.len(),
            out,
        )
    })
}

/// C_DeriveKey with its template rewritten.
unsafe extern "C" fn C_DeriveKey(
    session: usize,
    mechanism: usize,
    key: usize,
    template: *const Attribute,
    count: usize,
    out: usize,
) -> usize {
    let name = "C_DeriveKey";
    if let Err(rv) = gate(name, false, session) {
        return logged(name, rv);
    }
    let Some(real) = real() else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: the caller gave `count` attributes.
    let template = unsafe { rewritten(template, count) };
    // SAFETY: entry 62 is C_DeriveKey.
    let function: unsafe extern "C" fn(
        usize,
        usize,
        usize,
        *const Attribute,
        usize,
        usize,
    ) -> usize = unsafe { std::mem::transmute(real.functions[62]) };
    // SAFETY: the caller's arguments, with a template of the same length.
    logged(name, unsafe {
        function(
            session,
            mechanism,
            key,
            template.as_ptr(),
            template.len(),
            out,
        )
    })
}

/// The entry point of a PKCS#11 module.
///
/// # Safety
/// `list` points to a place for one pointer, as Cryptoki says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *const c_void) -> usize {
    static TABLE: OnceLock<Table> = OnceLock::new();
    if list.is_null() || real().is_none() {
        return CKR_GENERAL_ERROR;
    }
    let table = TABLE.get_or_init(|| {
        let mut functions = [0; ENTRIES];
        fill(&mut functions);
        functions[3] = C_GetFunctionList as *const () as usize;
        functions[4] = C_GetSlotList as *const () as usize;
        functions[6] = C_GetTokenInfo as *const () as usize;
        functions[24] = C_GetAttributeValue as *const () as usize;
        functions[61] = C_UnwrapKey as *const () as usize;
        functions[62] = C_DeriveKey as *const () as usize;
        Table {
            version: [2, 40],
            functions,
        }
    });
    // SAFETY: the caller vouches for the place; the table lives as long as the process.
    unsafe { *list = std::ptr::from_ref(table).cast() };
    0
}
