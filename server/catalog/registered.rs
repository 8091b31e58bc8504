//! Clusters and schemas: what people register before they post a load.

use millstream_engine::time::Timestamp;
use rusqlite::{Row, Transaction, params};

use crate::catalog::model::{Cluster, StoredSchema};
use crate::catalog::{Catalog, CatalogError, Result};

impl Catalog {
    /// All clusters, by name.
    pub async fn clusters(&self) -> Result<Vec<Cluster>> {
        self.call(|of| {
            let mut all = of.prepare_cached("SELECT cluster FROM clusters ORDER BY redshift_id")?;
            let all = all.query_map([], |row| row.get::<_, String>(0))?;
            all.map(|text| read(&text?)).collect()
        })
        .await
    }

    /// A cluster by its name.
    pub async fn cluster(&self, name: &str) -> Result<Cluster> {
        let name = name.to_owned();
        self.call(move |of| cluster(of, &name)?.ok_or_else(|| no_cluster(&name)))
            .await
    }

    /// Registers a cluster.
    ///
    /// # Errors
    /// There is one of this name.
    pub async fn post_cluster(&self, new: Cluster) -> Result<()> {
        self.call(move |to| {
            if cluster(to, &new.redshift_id)?.is_some() {
                let name = &new.redshift_id;
                return Err(CatalogError::Conflict(format!(
                    "there is a cluster {name:?} already; PUT /v1/clusters/{name} changes it"
                )));
            }
            save(to, &new)
        })
        .await
    }

    /// Changes a cluster.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn put_cluster(&self, changed: Cluster) -> Result<()> {
        self.call(move |to| {
            if cluster(to, &changed.redshift_id)?.is_none() {
                return Err(no_cluster(&changed.redshift_id));
            }
            save(to, &changed)
        })
        .await
    }

    /// Forgets a cluster.
    ///
    /// # Errors
    /// There is none of this name, or a job loads into it.
    pub async fn delete_cluster(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.call(move |to| {
            let user = to.query_row(
                "SELECT min(uuid) FROM jobs WHERE redshift_id = ?1 AND status NOT IN ('cancelled', 'complete')",
                [&name],
                |row| row.get::<_, Option<String>>(0),
            )?;
            if let Some(job) = user {
                return Err(CatalogError::Conflict(format!(
                    "the job {job} loads into the cluster {name:?}; cancel it first"
                )));
            }
            match to.execute("DELETE FROM clusters WHERE redshift_id = ?1", [&name])? {
                0 => Err(no_cluster(&name)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// All schemas, by log and version.
    pub async fn schemas(&self) -> Result<Vec<StoredSchema>> {
        self.call(|of| {
            let mut all = of.prepare_cached(
                "SELECT log_name, version, text, posted_at FROM schemas ORDER BY log_name, posted_at, version",
            )?;
            let all = all.query_map([], schema)?;
            Ok(all.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// A version of a log's schema.
    pub async fn schema(&self, log: &str, version: &str) -> Result<StoredSchema> {
        let (log, version) = (log.to_owned(), version.to_owned());
        self.call(move |of| {
            let mut one = of.prepare_cached(
                "SELECT log_name, version, text, posted_at FROM schemas WHERE log_name = ?1 AND version = ?2",
            )?;
            let found = one.query_map([&log, &version], schema)?.next().transpose()?;
            found.ok_or_else(|| {
                CatalogError::Missing(format!(
                    "no schema of {log:?} in version {version:?}; POST it to /v1/schema/{log}/{version}"
                ))
            })
        })
        .await
    }

    /// Keeps a schema for good. Posting the same text again changes nothing.
    ///
    /// # Errors
    /// Another text has been posted as this version.
    pub async fn post_schema(&self, new: StoredSchema) -> Result<()> {
        let known = self.schema(&new.log_name, &new.version).await;
        match known {
            Ok(known) if known.text == new.text => return Ok(()),
            Ok(_) => return Err(changed(&new)),
            Err(CatalogError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        self.call(move |to| {
            let added = to.execute(
                "INSERT INTO schemas VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![new.log_name, new.version, new.text, new.posted_at.0],
            )?;
            // Another process was faster.
            if added == 0 { Err(changed(&new)) } else { Ok(()) }
        })
        .await
    }
}

fn changed(new: &StoredSchema) -> CatalogError {
    CatalogError::Conflict(format!(
        "version {:?} of {:?} has been posted with another text and never changes; post the next version",
        new.version, new.log_name
    ))
}

/// A cluster by its name.
pub(super) fn cluster(of: &Transaction<'_>, name: &str) -> Result<Option<Cluster>> {
    let mut one = of.prepare_cached("SELECT cluster FROM clusters WHERE redshift_id = ?1")?;
    let text = one
        .query_map([name], |row| row.get::<_, String>(0))?
        .next()
        .transpose()?;
    text.map(|text| read(&text)).transpose()
}

/// The YAML of a version of a log's schema.
pub(super) fn schema_text(of: &Transaction<'_>, log: &str, version: &str) -> Result<Option<String>> {
    let mut one = of.prepare_cached("SELECT text FROM schemas WHERE log_name = ?1 AND version = ?2")?;
    Ok(one
        .query_map([log, version], |row| row.get(0))?
        .next()
        .transpose()?)
}

fn save(to: &Transaction<'_>, cluster: &Cluster) -> Result<()> {
    let text = serde_json::to_string(cluster).map_err(|e| CatalogError::Failed(e.to_string()))?;
    to.execute(
        "INSERT OR REPLACE INTO clusters VALUES (?1, ?2)",
        params![cluster.redshift_id, text],
    )?;
    Ok(())
}

fn read(text: &str) -> Result<Cluster> {
    serde_json::from_str(text).map_err(|e| CatalogError::Failed(format!("a cluster in the catalog: {e}")))
}

fn no_cluster(name: &str) -> CatalogError {
    CatalogError::Missing(format!("no cluster {name:?}; POST it to /v1/clusters"))
}

fn schema(row: &Row<'_>) -> rusqlite::Result<StoredSchema> {
    Ok(StoredSchema {
        log_name: row.get(0)?,
        version: row.get(1)?,
        text: row.get(2)?,
        posted_at: Timestamp(row.get(3)?),
    })
}
