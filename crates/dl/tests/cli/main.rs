//! The real binary, command by command, in folders of their own.

mod bad_input;
mod catalogs;
mod commits;
mod diffing;
mod importing;
mod interruptions;
mod mirroring;
mod quickstart;
mod reading;
mod world;
