//! The real binary on loopback, asked as Grafana, agents, the page and attackers ask it.

mod access;
mod contract;
#[cfg(unix)]
mod crash;
mod damage;
mod deletion;
mod edges;
mod errors;
#[cfg(target_os = "linux")]
mod full_disk;
mod hostile;
mod ingest;
mod jfr;
mod load;
mod otlp;
mod page;
mod push;
mod pushes;
mod queries;
mod rest;
mod rest_document;
mod rest_explain;
mod rest_formats;
mod rest_lists;
mod startup;
mod store;
mod support;
mod table;
mod tls;
mod traces;
