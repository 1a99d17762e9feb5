//! Rows of a query, as a table takes them.

use std::sync::Arc;

use deltalake::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use deltalake::datafusion::common::{Column, DataFusionError, Result as QueryResult};
use deltalake::datafusion::dataframe::DataFrame;
use deltalake::datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use deltalakedb_catalog_core::error::CatalogError;

use super::types::{delta_type, merged};
use super::{Misfit, column};

/// The columns that rows of `source` are written as: with the types of the table's columns, and for columns
/// that it does not have with types of Delta. With `merge` the table's nested columns may grow, and those of
/// type `void` get the types of the rows.
///
/// # Errors
/// A [`Misfit`] for a column whose type Delta does not have, or that has none.
pub fn target(source: &Schema, table: Option<&Schema>, merge: bool) -> Result<Schema, Misfit> {
    let field = |field: &FieldRef| -> Result<Field, Misfit> {
        let of_table = table.and_then(|table| table.field_with_name(field.name()).ok());
        let field = field.as_ref();
        match of_table {
            Some(mine) if merge => {
                let kind = merged(mine.data_type(), field.data_type());
                Ok(mine.clone().with_data_type(kind.map_err(|e| e.within(field.name()))?))
            }
            Some(mine) => Ok(mine.clone()),
            None => {
                let kind = delta_type(field.data_type()).map_err(|e| e.within(field.name()))?;
                Ok(field.clone().with_data_type(kind))
            }
        }
    };
    Ok(Schema::new(source.fields().iter().map(field).collect::<Result<Vec<_>, _>>()?))
}

/// Rows in the types of `target`, which has the columns of the rows. A value that does not fit fails the query
/// when it is met.
///
/// # Errors
/// Those of planning.
pub fn rows(frame: DataFrame, target: &Schema) -> QueryResult<DataFrame> {
    let columns: Vec<Column> = frame.schema().columns();
    let mut list = Vec::with_capacity(columns.len());
    for (source, from) in columns.into_iter().zip(frame.schema().as_arrow().fields().clone().iter())
    {
        let expression = Expr::Column(source.clone());
        list.push(match target.field_with_name(source.name()) {
            Ok(field)
                if field.data_type() != from.data_type()
                    || from.is_nullable() && !field.is_nullable() =>
            {
                let fit = ScalarUDF::from(Fit::new(field.clone()));
                fit.call(vec![expression]).alias(source.name())
            }
            _ => expression.alias(source.name()),
        });
    }
    frame.select(list)
}

/// A function that makes the values of a column fit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fit {
    signature: Signature,
    field: FieldRef,
}

impl Fit {
    fn new(field: Field) -> Fit {
        Fit { signature: Signature::any(1, Volatility::Immutable), field: Arc::new(field) }
    }
}

impl ScalarUDFImpl for Fit {
    fn name(&self) -> &'static str {
        "fit"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> QueryResult<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let Some(values) = args.args.first() else {
            return Err(DataFusionError::Internal("a column is missing".to_owned()));
        };
        let array = values.to_array(args.number_rows)?;
        let fitted = column(&array, &self.field).map_err(|misfit| {
            DataFusionError::External(Box::new(CatalogError::invalid(misfit.to_string())))
        })?;
        Ok(ColumnarValue::Array(fitted))
    }
}
