//! What tenants may, and the file that says so: read again when it changes, without a restart.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{Config, ServeArgs, file};
use crate::ingest::Limits;
use crate::model::TenantId;

/// What tenants may send and ask for.
#[derive(Debug, Clone)]
pub struct TenantLimits {
    common: Arc<Limits>,
    own: HashMap<TenantId, Arc<Limits>>,
}

impl TenantLimits {
    /// What this tenant may.
    pub fn of(&self, tenant: &TenantId) -> Arc<Limits> {
        Arc::clone(self.own.get(tenant).unwrap_or(&self.common))
    }
}

impl Config {
    /// What tenants may as long as the file stays as it was.
    pub fn tenant_limits(&self) -> TenantLimits {
        let own = |(tenant, limits): (&TenantId, &Limits)| (tenant.clone(), Arc::new(limits.clone()));
        TenantLimits { common: Arc::new(self.limits.clone()), own: self.tenants.iter().map(own).collect() }
    }
}

/// A configuration file, and what went before it when it was read: the command line and the environment.
#[derive(Clone)]
pub struct Source(Arc<ServeArgs>);

impl Source {
    /// None without a file.
    pub(super) fn of(args: ServeArgs) -> Option<Self> {
        args.config.is_some().then(|| Self(Arc::new(args)))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.0.config.as_deref().expect("there is none without a file")
    }

    /// What tenants may now that the file holds this. Whatever else is new in it has to be right, but holds only after a
    /// restart.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn limits(&self, contents: &[u8]) -> Result<TenantLimits, String> {
        let text = std::str::from_utf8(contents).map_err(|error| error.to_string())?;
        let file = file::parse(self.path(), text).map_err(|error| error.to_string())?;
        let config = Config::join(&self.0, &file).map_err(|error| error.to_string())?;
        Ok(config.tenant_limits())
    }
}

/// Without what went before it: that may hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.path()).finish()
    }
}

/// Of the same file.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for Source {}
