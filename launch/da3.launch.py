"""The node on a robot: ros2 launch da3 da3.launch.py params_file:=mine.yaml"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription


def generate_launch_description() -> LaunchDescription:
    config = PathJoinSubstitution([FindPackageShare("da3"), "config"])
    arguments = [
        DeclareLaunchArgument(
            "params_file", default_value=PathJoinSubstitution([config, "one_camera.yaml"]), description="cameras and settings: see config/"
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node and its topics"),
        DeclareLaunchArgument("use_sim_time", default_value="", description="true: take time from /clock; empty: as params_file says"),
        DeclareLaunchArgument(
            "autostart", default_value="", description="false: leave the lifecycle to a manager; empty: as params_file says"
        ),
        DeclareLaunchArgument("large_messages", default_value="false", description="Fast DDS with a large shared-memory segment"),
        DeclareLaunchArgument("rviz", default_value="false", description="show inputs and outputs"),
        DeclareLaunchArgument(
            "rviz_config",
            default_value=PathJoinSubstitution([config, "da3.rviz"]),
            description="what RViz shows; the one here is for a camera named camera, without a namespace",
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    large_messages = SetEnvironmentVariable(
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        PathJoinSubstitution([config, "fastdds-large.xml"]),
        condition=IfCondition(LaunchConfiguration("large_messages")),
    )
    return LaunchDescription([*arguments, large_messages, OpaqueFunction(function=make_nodes)])


def make_nodes(context: LaunchContext) -> list[Node]:
    """The node, and RViz. What is given as an argument holds over params_file, what is not leaves it alone."""
    arguments = {"use_sim_time": LaunchConfiguration("use_sim_time"), "autostart": LaunchConfiguration("autostart")}
    given = {name: ParameterValue(value, value_type=bool) for name, value in arguments.items() if value.perform(context)}
    node = LifecycleNode(
        package="da3",
        executable="da3_node",
        name="da3",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), *({name: value} for name, value in given.items())],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
        emulate_tty=True,
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        arguments=["-d", LaunchConfiguration("rviz_config")],
        parameters=[{"use_sim_time": given["use_sim_time"]}] if "use_sim_time" in given else [],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [node, rviz]
