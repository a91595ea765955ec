"""What a card asks its readers to cite, as BibTeX."""

#: The paper whose data sets are rebuilt here.
ATOMVISION = """@article{choudhary2023atomvision,
  title   = {{AtomVision}: A Machine Vision Library for Atomistic Images},
  author  = {Choudhary, Kamal and Gurunathan, Ramya and DeCost, Brian and Biacchi, Adam},
  journal = {Journal of Chemical Information and Modeling},
  year    = {2023},
  doi     = {10.1021/acs.jcim.2c01533}
}"""
#: The approximation of all STM images.
TERSOFF_HAMANN = """@article{tersoff1985theory,
  title   = {Theory of the scanning tunneling microscope},
  author  = {Tersoff, J. and Hamann, D. R.},
  journal = {Physical Review B},
  volume  = {31},
  pages   = {805},
  year    = {1985},
  doi     = {10.1103/PhysRevB.31.805}
}"""
