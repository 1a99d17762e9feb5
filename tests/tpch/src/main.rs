//! `tpch FOLDER SCALE`: the tables of TPC-H as Parquet files.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use arrow::array::RecordBatchReader;
use parquet::arrow::ArrowWriter;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, scale] = arguments.as_slice() else {
        anyhow::bail!("tpch FOLDER SCALE, as in: tpch /tmp/tpch 0.1");
    };
    let scale: f64 = scale.parse().with_context(|| format!("'{scale}' is not a number"))?;
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    write(folder, "region", RegionArrow::new(RegionGenerator::new(scale, 1, 1)))?;
    write(folder, "nation", NationArrow::new(NationGenerator::new(scale, 1, 1)))?;
    write(folder, "supplier", SupplierArrow::new(SupplierGenerator::new(scale, 1, 1)))?;
    write(folder, "customer", CustomerArrow::new(CustomerGenerator::new(scale, 1, 1)))?;
    write(folder, "part", PartArrow::new(PartGenerator::new(scale, 1, 1)))?;
    write(folder, "partsupp", PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1)))?;
    write(folder, "orders", OrderArrow::new(OrderGenerator::new(scale, 1, 1)))?;
    write(folder, "lineitem", LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)))
}

fn write(folder: &Path, table: &str, rows: impl RecordBatchReader) -> Result<()> {
    let path = folder.join(format!("{table}.parquet"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None)?;
    for batch in rows {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
