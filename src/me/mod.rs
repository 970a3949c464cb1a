//! The door of whoever holds a token: what concerns the account and the credential that it was got with.
//!
//! Owns how that is asked and answered by HTTP; what there is to say is in the rooms. Nobody is told of anyone else here, and
//! nobody changes what is another's: whose records they are is taken from the token, and from nothing that the request says.

pub mod openapi;
mod proof;
mod roll;
mod usage;

pub use roll::Roller;
pub use usage::MyUsage;
