//! One stored matrix times many activations.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};

use crate::error::EngineError;
use crate::gguf::GgmlType;
use crate::quant;
use crate::weights::Matrix;

/// A linear map `[rows, cols]`; also the token embedding, which may be the output head at the same time.
#[derive(Debug)]
pub(super) struct Linear {
    product: QMatMul,
    cols: usize,
}

fn cpu_error(error: candle_core::Error) -> EngineError {
    EngineError::Cpu(error.to_string())
}

impl Linear {
    pub(super) fn new(matrix: &Matrix<'_>) -> Result<Self, EngineError> {
        Self::over(matrix.dtype, matrix.rows, matrix.cols, &matrix.bytes)
    }

    /// One map with the rows of all matrices under each other when they are stored alike, else one map for each.
    pub(super) fn stacked(parts: &[&Matrix<'_>]) -> Result<Vec<Self>, EngineError> {
        let Some(first) = parts.first() else { return Ok(Vec::new()) };
        if parts.iter().any(|part| part.dtype != first.dtype || part.cols != first.cols) {
            return parts.iter().map(|part| Self::new(part)).collect();
        }
        let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect::<Vec<u8>>();
        let rows = parts.iter().map(|part| part.rows).sum();
        Ok(vec![Self::over(first.dtype, rows, first.cols, &bytes)?])
    }

    fn over(dtype: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self, EngineError> {
        Ok(Self { product: quantised(dtype, rows, cols, bytes)?, cols })
    }

    /// `x` is `[m, cols]`; returns `[m, rows]`.
    pub(super) fn apply(&self, x: &[f32], m: usize) -> Result<Vec<f32>, EngineError> {
        let x = Tensor::from_slice(x, (m, self.cols), &Device::Cpu).map_err(cpu_error)?;
        let y = self.product.forward(&x).and_then(|y| y.flatten_all()?.to_vec1::<f32>());
        y.map_err(cpu_error)
    }

    /// The rows that `tokens` name, `[tokens, cols]`. The caller has checked that they exist.
    pub(super) fn rows(&self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let ids = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu).map_err(cpu_error)?;
        let rows = self.product.embedding(&ids).and_then(|rows| rows.flatten_all()?.to_vec1::<f32>());
        rows.map_err(cpu_error)
    }
}

fn singles(dtype: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Vec<f32>, EngineError> {
    let mut values = vec![0.0f32; rows * cols];
    if quant::dequantize(dtype, bytes, &mut values) {
        Ok(values)
    } else {
        Err(EngineError::Cpu("a matrix has the wrong number of bytes".into()))
    }
}

fn quantised(dtype: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<QMatMul, EngineError> {
    let kind = match dtype {
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2K => GgmlDType::Q2K,
        GgmlType::Q3K => GgmlDType::Q3K,
        GgmlType::Q4K => GgmlDType::Q4K,
        GgmlType::Q5K => GgmlDType::Q5K,
        GgmlType::Q6K => GgmlDType::Q6K,
        // candle has no codes for the last three.
        GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 | GgmlType::Iq4Nl | GgmlType::Iq4Xs | GgmlType::Q1_0 => {
            let values = singles(dtype, rows, cols, bytes)?;
            return Tensor::from_vec(values, (rows, cols), &Device::Cpu).map(QMatMul::Tensor).map_err(cpu_error);
        }
    };
    if dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows)) != Some(bytes.len()) {
        return Err(EngineError::Cpu("a matrix has the wrong number of bytes".into()));
    }
    // candle insists on blocks at even addresses and panics otherwise; a slice of a file promises nothing.
    let aligned: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_ne_bytes(*pair)).collect();
    let storage = QStorage::from_data(bytemuck::cast_slice::<u16, u8>(&aligned).into(), &Device::Cpu, kind);
    let tensor = storage.and_then(|storage| QTensor::new(storage, (rows, cols))).map_err(cpu_error)?;
    QMatMul::from_arc(Arc::new(tensor)).map_err(cpu_error)
}
