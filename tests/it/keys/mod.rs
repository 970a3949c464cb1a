//! Keys as a product: rolled with grace, bound to networks, and seen when they are used.

mod foreign;
mod networks;
mod own;
mod rolled;
