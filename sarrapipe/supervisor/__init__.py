"""The processes of a flow: one parent, a fork server, and N instances (docs/explanation/processes.md).

What an instance does is named by a string, `module:function`, and imported only in the fork server: this
package knows no broker, no transfer and no flow.
"""
