//! stub
#![allow(missing_docs)]
pub struct Decoding; impl Decoding { pub fn new(_:&[u8])->Result<Option<Self>,()> {Ok(None)} pub fn feed(&mut self,_:&[u8],_:&mut Vec<u8>)->Result<(),()>{Ok(())} pub fn finish(&mut self)->Result<(),()>{Ok(())} }
