//! No code: this package asks for features. A step of CI checks the facade with DataFusion and nothing else of
//! the facade's features; beside this package, it shares all that stands below with the workspace's build.
#![forbid(unsafe_code)]
