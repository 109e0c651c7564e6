//! The whole path of an order, end to end: real servers, the services as the programs that are shipped, and the
//! audit's word on whether everything still holds.

mod audit;
mod certify;
mod clock;
mod commands;
mod contracts;
mod counts;
mod crashes;
mod dead_letters;
mod failpoints;
mod faults;
mod freeze;
mod input;
mod links;
mod load;
mod lost;
mod orders;
mod overdue;
mod participant;
mod poison;
mod retention;
mod rewind;
mod rolling;
mod rules;
mod servers;
mod slow;
mod stacks;
mod stand;
mod trace;
