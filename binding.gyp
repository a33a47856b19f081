{
  # For tools that insist on node-gyp; the build itself is CMakeLists.txt. Not part of the published package.
  "targets": [
    {
      "target_name": "foretoken",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/foretoken.node"],
          "action": [
            "<!(node -p process.execPath)",
            "<!(node -p \"require.resolve('cmake-js/bin/cmake-js')\")",
            "build",
            "--out",
            "build/cmake",
            "--config",
            "<(CONFIGURATION_NAME)",
            "--target",
            "foretoken"
          ]
        }
      ]
    }
  ]
}
