"""A file of any known format becomes frames.

- `scan.py`: `Reader`, the form of a row of the table; what readers take and give
- `values.py`: which stored values mean 0 and 1; outliers and padding; more than 16 bits and signs
  brought to 16
- `volumes.py`: a volume becomes slices with one value range
- `pictures.py`: PNG, JPEG, TIFF, WebP and BMP
- `tiffs.py`: what the tags of a TIFF say that Pillow passes over
- `codestream.py`: what the first bytes of a JPEG, JPEG 2000 or PNG claim
- `dicom.py`: DICOM files to frames
- `dicom_tags.py`: their texts, numbers and units, and which are no pictures of a patient
- `dicom_values.py`: their stored bits, padding, tables and windows
- `nifti.py`: NIfTI and MGH volumes
- `medmnist.py`: rows of MedMNIST's npz files
- `numpy_arrays.py`: NumPy's .npy files
- `containers.py`: zip and tar archives and paths that lead into them
- `readers.py`: `READERS`, the table of formats; reads the header and the frames of any file
- `limits.py`: the processor time that a file may cost
"""
