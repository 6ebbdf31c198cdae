//! stub
#![allow(missing_docs)]
pub struct Answer{pub status:u16,pub headers:Vec<(&'static str,String)>,pub pieces:Vec<Vec<u8>>,pub cut:bool}
pub fn answer(_:crate::Api,_:&str,_:&str,_:&str,_:&[u8],_:Option<&str>)->Answer{Answer{status:200,headers:vec![],pieces:vec![],cut:false}}
