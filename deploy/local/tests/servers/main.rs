//! Real servers: started, killed, restarted, left behind.

mod faults;
mod helper;
mod lifecycle;
mod preparation;
