"""Puts koda_audit.pth beside the package; all the rest stands in setup.cfg."""

import setuptools


class Distribution(setuptools.Distribution):
    """An editable install copies data files only when asked by this name, which setuptools itself does not define."""

    has_data = setuptools.Distribution.has_data_files


class InstallBesidePackage(Distribution().get_command_class("install_data")):
    """Data files go into site-packages instead of the prefix.

    Setuptools treats data files alike for a wheel and for an editable wheel, so this one step serves both, and pip
    writes the file into RECORD and removes it on uninstall.
    """

    def finalize_options(self):
        self.set_undefined_options("install", ("install_lib", "install_dir"), ("root", "root"), ("force", "force"))


setuptools.setup(distclass=Distribution, cmdclass={"install_data": InstallBesidePackage})
