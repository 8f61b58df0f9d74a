//! The whole house at work: real server and service processes, real sockets, and clients that ask as Grafana does.

mod degraded;
mod demo_load;
mod durability;
mod house;
mod plain_otel;
mod provisioning;
mod pyroscope_agent;
mod threads;
mod whole_system;
