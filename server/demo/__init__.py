"""The fictional bicycle shop Alpenrad: documents and questions to show the product with."""
