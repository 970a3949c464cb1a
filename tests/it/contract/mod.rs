//! The contract, row by row: each test says a behaviour and cites the row it is about (§ of the contract).

mod demo;
mod https_only;
mod licences;
mod secured;
mod token_endpoint;
