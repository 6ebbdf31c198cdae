//! The fault shim: a PKCS#11 module that forwards every call to a real one and, by script, fails, hangs, crashes or lies.
//!
//! For tests only. `TACIT_SHIM_MODULE` names the real module, `TACIT_SHIM_SCRIPT` a file that is read again whenever it
//! changes (see [`script`] for its lines), `TACIT_SHIM_LOG` a file that gets one line per call: name and CK_RV.
//!
//! `unsafe` is this crate's nature: it exports C functions and calls through a C function table. Three facts carry it. Every
//! argument of every Cryptoki function is a machine word or narrower and travels in an integer register or stack word, so a
//! word-typed function of the same arity forwards it unchanged. The table of the real module is read once and lives as long as
//! the process, since the module is never unloaded. And where a call's memory is looked at (templates, slot lists), it is the
//! memory that the caller must give the real module anyway, with the same lengths.
#![allow(unsafe_code, reason = "argued in the head of this file")]
#![allow(non_snake_case, reason = "the names are Cryptoki's")]

mod faults;
pub mod script;
mod table;

pub use table::C_GetFunctionList;
